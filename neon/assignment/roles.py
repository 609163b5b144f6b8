"""What each parameter is to a whole model: a hidden matrix, part of an output head, an embedding, or neither."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

from neon.assignment.description import Description
from neon.assignment.matrix_layers import EMBEDDING, HEAD, HIDDEN, NO_ROLE, ROLES, VECTOR, Role, role_of
from neon.assignment.sites import Site, by_parameter

TIED, SIZED, NAMED, LAST = (
    f"output head ({why})"
    for why in ("tied to an embedding", "as wide as a vocabulary", "by its name", "the last layer")
)
# Those about which there is no doubt.
PLAIN = (EMBEDDING, TIED, SIZED)
_NAMES = {"head", "classifier", "score", "logits"}


def asks_for_roles(optimizer: Description) -> bool:
    """Whether a description goes by what parameters are to a model."""
    keys = optimizer._optimizers_by_key
    if keys is None:
        return optimizer.of_matrices
    return not keys.keys().isdisjoint(ROLES) or any(asks_for_roles(inner) for inner in keys.values() if inner)


def with_roles(sites: Iterable[Site]) -> list[Site]:
    """The sites of a whole model, each with what it is there.

    A *hidden matrix* is a weight of a layer that multiplies by matrices (linear, convolutional, recurrent, attention),
    and that is no output head. An *output head* is

    1. a weight that is tied to an embedding;
    2. a linear layer with as many outputs as an embedding has vectors;
    3. the last layer below a name such as `head`, `lm_head`, `classifier`, `score` or `logits`;
    4. where nothing is found so, the last layer of the model, in the order of registration.

    What stands in numbered blocks that are alike, `layers.0.mlp.down_proj`, is none by 2 to 4.
    """
    found = [_begun(site) for site in sites]
    tied: dict[int, tuple[str, ...]] = {}
    for shared in by_parameter(found):
        if len({site.role.said == EMBEDDING for site in shared}) > 1:
            names = tuple(name for site in shared for name in own_names(site))
            tied |= {id(site.param): names for site in shared}
    for place, site in enumerate(found):
        if (names := tied.get(id(site.param))) is not None:
            as_head = site.role if site.role.said == EMBEDDING else _as(site, TIED).role
            found[place] = replace(site, role=replace(as_head, tied=names))
    heads = _heads(found)
    return [site if place not in heads else _as(site, heads[place]) for place, site in enumerate(found)]


def own_names(site: Site) -> set[str]:
    """The names of a parameter and of its layer, without those of what is around these."""
    own = [name for name in site.names if name.endswith(f".{site.own}")] if site.own else []
    return {*own, *(name.removesuffix(f".{site.own}") for name in own), *site.names[:1]}


def _begun(site: Site) -> Site:
    if site.param is None or site.role is not NO_ROLE or site.layer is None:
        return site
    return replace(site, role=role_of(site.layer, site.own, site.param))


def _as(site: Site, said: str) -> Site:
    return replace(site, role=Role(HEAD, said, site.role.matrices, site.role.heads))


def _heads(sites: Sequence[Site]) -> dict[int, str]:
    """The places of output heads that are not tied, with why they are."""
    lengths = {site.param.shape[0] for site in sites if site.role.said == EMBEDDING and site.param is not None}
    matrices = [
        (place, site) for place, site in enumerate(sites) if site.role.key == HIDDEN or site.role.said == VECTOR
    ]
    alike = Counter(kind for _, kind in {(site.label, _kind(site)) for _, site in matrices})
    single = [(place, site) for place, site in matrices if site.role.heads and alike[_kind(site)] == 1]
    found = {place: SIZED for place, site in single if _is_flat(site) and _outputs(site) in lengths}
    named: dict[str, list[int]] = defaultdict(list)
    for place, site in single:
        if below := _named_head(site.label):
            named[below].append(place)
    found |= {places[-1]: NAMED for places in named.values() if not found.keys() & {*places}}
    if not found and single and single[-1][0] == matrices[-1][0] and all(site.role.said != TIED for site in sites):
        found[single[-1][0]] = LAST
    return found


def _kind(site: Site) -> Hashable:
    """What a layer has in common with those of the same place in other blocks."""
    *blocks, name = site.label.split(".")
    shape = () if site.param is None else tuple(site.param.shape)
    return tuple(re.sub(r"\d+", "*", block) for block in blocks), name, site.own, shape


def _is_flat(site: Site) -> bool:
    return site.param is not None and site.param.dim() == 2


def _outputs(site: Site) -> int:
    assert site.param is not None
    assert site.role.matrices is not None
    return sum(count * rows for count, rows, _ in site.role.matrices.shapes(site.param.shape))


def _named_head(label: str) -> str:
    """The name of the head in which a layer is, empty where there is none."""
    parts = label.split(".")
    ends = [end for end, part in enumerate(parts, 1) if part in _NAMES or part.endswith("_head")]
    return ".".join(parts[: ends[0]]) if ends else ""
