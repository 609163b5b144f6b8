"""Assignment: which optimizer each parameter gets. Name > pattern > class > default."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from re import fullmatch
from typing import TYPE_CHECKING

from neon.messages import listed
from neon.optimizers.sites import Site, by_parameter, one_site

if TYPE_CHECKING:
    from neon.optimizers.multioptimizer import MultiOptimizer
    from neon.optimizers.optimizer import Optimizer

DEFAULT, CLASS, PATTERN, NAME = range(4)


@dataclass(frozen=True)
class Match:
    """The optimizer of a site (None: it stays as it is), and the keys that chose it.

    `path` has a (level, length, key) for each of the `mappings` that led to it, from the outermost in; `norms`
    are those that clip by a norm over all they hold, in the same order.
    """

    path: tuple[tuple[int, int, str], ...]
    optimizer: Optimizer | None
    norms: tuple[MultiOptimizer, ...] = ()
    mappings: tuple[MultiOptimizer, ...] = ()

    @property
    def key(self) -> str:
        """The label of the optimizer: the keys that lead to it."""
        return "/".join(key for _, _, key in self.path) or "default"


def is_pattern(key: str) -> bool:
    """Whether a key is a pattern: `re:` and a regular expression, or a name with `*`, `?` or `[`."""
    return key.startswith("re:") or any(character in key for character in "*?[")


def matching_keys(keys: Iterable[str], site: Site) -> list[tuple[int, int, str]]:
    """The keys that apply to a site, as (level, length, key), the one that holds first."""
    keys = list(keys)
    names = {name: near for near, name in reversed(list(enumerate(site.names)))}
    classes = {name: near for near, name in reversed(list(enumerate(site.classes)))}
    found: list[tuple[int, int, int, str]] = []
    for key in keys:
        if key == "default":
            found.append((DEFAULT, 0, 0, key))
        elif key in names:
            found.append((NAME, 0, -names[key], key))
        elif is_pattern(key):
            if any(_fits(key, name) for name in site.names):
                found.append((PATTERN, len(key.removeprefix("re:")), 0, key))
        elif key in classes:
            found.append((CLASS, 0, -classes[key], key))
    found.sort(key=lambda match: match[:3], reverse=True)  # stable: of equals the first in the mapping
    return [(level, length, key) for level, length, _, key in found]


def _fits(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        return fullmatch(pattern[3:], name) is not None
    return fnmatchcase(name, pattern)


def assign(optimizer: Optimizer, sites: Iterable[Site]) -> list[tuple[Site, Match]]:
    """Each parameter once, with its optimizer; layers without parameters are kept for the table.

    A parameter that several layers share goes by the strongest of their keys; a draw between
    different optimizers raises `ValueError`. In layer lists it has the sum of the gradients that they bring.
    """
    return [
        (one_site(shared), _strongest([(site, optimizer.match(site)) for site in shared]))
        for shared in by_parameter(sites)
    ]


def _strongest(shared: list[tuple[Site, Match]], depth: int = 0) -> Match:
    """Of the matches of one parameter the one that holds; of nested mappings the outer key decides first."""
    best = max((match.path[depth][:2] for _, match in shared if len(match.path) > depth), default=None)
    if best is None:
        return shared[0][1]
    shared = [(site, match) for site, match in shared if match.path[depth][:2] == best]
    if len({match.path[depth][2] for _, match in shared}) == 1:
        return _strongest(shared, depth + 1)
    if any(match.optimizer is not shared[0][1].optimizer for _, match in shared):
        keys = dict.fromkeys(repr(match.key) for _, match in shared)
        raise ValueError(
            f"The parameter shared by {listed(dict.fromkeys(site.label for site, _ in shared))} is given to different "
            f"optimizers by the keys {listed(keys, 80)}, which are equally strong. Add a key with the name of one of "
            "the layers."
        )
    return shared[0][1]
