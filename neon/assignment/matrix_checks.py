"""What is silently wrong under a rule of matrices, and is refused before a step: vectors, embeddings, output heads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch.nn.parameter import is_lazy

from neon.assignment.description import Description
from neon.assignment.keys import CLASS, NAME, PATTERN, Match, fitting_keys
from neon.assignment.matrix_layers import EMBEDDING, EMBEDDINGS, HEAD
from neon.assignment.roles import PLAIN, own_names
from neon.assignment.sites import Site, site_name
from neon.assignment.unmatched import what_there_is
from neon.messages import listed, shortened


def check_matrices(assigned: Iterable[tuple[Site, Match]]) -> None:
    """Refuse parameters that are no matrices, and those that are no hidden ones and that no key of their own names.

    Of rules that have a step for vectors too nothing is refused.
    """
    vectors: dict[str, list[str]] = {}
    others: dict[str, list[str]] = {}
    for site, match in assigned:
        if match.optimizer is None or match.optimizer._serves_vectors or site.param is None or is_lazy(site.param):
            continue
        kind, name = called(match.optimizer), site_name(site)
        if site.param.dim() < 2:
            vectors.setdefault(kind, []).append(name)
        elif site.role.said in PLAIN and not _is_named(site, match):
            others.setdefault(kind, []).append(f"{name} ({site.role.said})")
    for kind, names in vectors.items():
        raise ValueError(
            f"{kind} updates matrices, and these parameters are none: {listed(names, 120)}. {_one_line(kind)}"
        )
    for kind, names in others.items():
        raise ValueError(
            f"{kind} is for hidden matrices, and these are not: {listed(names, 130)}. {_one_line(kind)} "
            "Where it is meant, give their layer a key with its name."
        )


def called(optimizer: Description) -> str:
    """What messages call an optimizer: by its class, of one in torch's manner by that one's."""
    return shortened(type(optimizer).__name__.removesuffix("Rule"), 30)


def _one_line(kind: str) -> str:
    line = f'MultiOptimizer({{"default": AdamW(), "HiddenMatrix": {kind}()}})'
    return f"Give them another rule: {line} over the whole model."


def _is_named(site: Site, match: Match) -> bool:
    """Whether a key is about this parameter or its layer, not about all that is around it."""
    itself = Site("", "", (*own_names(site), *site.role.tied), ())
    for level, _, key in match.path:
        if level in (NAME, PATTERN) and fitting_keys([key], itself):
            return True
        if level == CLASS and (key == HEAD or (key in {site.kind, *EMBEDDINGS} and site.role.said == EMBEDDING)):
            return True
    return False


def check_parts(description: Description, sites: Sequence[Site]) -> None:
    """Refuse keys of `parts` that fit none of the parameters of a rule."""
    parts = description.parts
    if not isinstance(parts, Mapping):
        return
    fitting = {key for site in sites for key in fitting_keys(parts, site)}
    missing = [key for key in parts if key not in fitting and key != "default"]
    if missing:
        text = f"{called(description)}: no parameter of its own fits the key {listed(map(repr, missing), 80)} of parts."
        names = [name for site in sites for name in site.names]
        tails = [f"*.{key}" for key in missing if any(name.endswith(f".{key}") for name in names)]
        if tails:
            raise ValueError(
                f"{text} A name is that of the whole path; a pattern fits in any block. Did you mean "
                f"{listed(map(repr, tails), 80)}?"
            )
        raise ValueError(f"{text}{what_there_is(missing, sites, len(text) + 30)} Correct or remove the key.")
