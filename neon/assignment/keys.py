"""Assignment: which optimizer each parameter gets. Name > pattern > class > default."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from neon.assignment.description import Description
from neon.assignment.sites import Site, by_parameter, one_site
from neon.messages import listed, shortened, shown

DEFAULT, CLASS, PATTERN, NAME = range(4)


@dataclass(frozen=True)
class Match:
    """The optimizer of a site (None: it stays as it is), and the keys that chose it.

    `path` has a (level, length, key) for each of the `mappings` that led to it, from the outermost in; `norms`
    are those that clip by a norm over all they hold, in the same order.
    """

    path: tuple[tuple[int, int, str], ...]
    optimizer: Description | None
    norms: tuple[Description, ...] = ()
    mappings: tuple[Description, ...] = ()

    @property
    def key(self) -> str:
        """The label of the optimizer: the keys that lead to it."""
        return "/".join(key for _, _, key in self.path) or "default"


@lru_cache(maxsize=1024)
def is_pattern(key: str) -> bool:
    """Whether a key is a pattern: `re:` and a regular expression, or a name with `*`, `?` or `[`."""
    return key.startswith("re:") or any(character in key for character in "*?[")


def check_key(of: str, key: Any) -> None:
    """Refuse what cannot be a key of the mapping `of`."""
    if not isinstance(key, str):
        raise TypeError(f"{of}'s keys must be strings. Received the key {shown(key, 60)}.")
    if "/" in key:
        raise ValueError(f"{of}'s key {shortened(key)!r} holds a slash, which separates nested keys. Leave it out.")
    check_pattern(f"{of}'s key {shortened(key)!r}", key)


def check_pattern(said: str, key: str) -> None:
    """Refuse a key that is to be a regular expression and is none, as what was `said`."""
    if key.startswith("re:"):
        try:
            re.compile(key[3:])
        except re.error as error:
            raise ValueError(f"{said} is not a regular expression: {error}.") from error


def strongest_key(keys: Collection[str], site: Site) -> tuple[int, int, str] | None:
    """The key that holds for a site, as (level, length, key)."""
    for name in site.names:
        if name in keys and name != "default":
            return NAME, 0, name
    patterns = [key for key in keys if is_pattern(key) and any(_fits(key, name) for name in site.names)]
    if patterns:
        longest = max(patterns, key=_length)  # of equals the first in the mapping
        return PATTERN, _length(longest), longest
    for kind in (site.role.key, *site.classes):
        if kind in keys and kind not in ("", "default"):
            return CLASS, 0, kind
    return (DEFAULT, 0, "default") if "default" in keys else None


def fitting_keys(keys: Iterable[str], site: Site) -> set[str]:
    """All keys that apply to a site, whether they hold or not."""
    return {key for key in keys if key == "default" or strongest_key((key,), site)}


def _length(pattern: str) -> int:
    return len(pattern.removeprefix("re:"))


def _fits(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        return re.fullmatch(pattern[3:], name) is not None
    return fnmatchcase(name, pattern)


def assign(optimizer: Description, sites: Iterable[Site]) -> list[tuple[Site, Match]]:
    """Each parameter once, with its optimizer; layers without parameters are kept for the table.

    A parameter that several layers share goes by the strongest of their keys; a tie between
    different optimizers raises `ValueError`. In layer lists it has the sum of the gradients that they bring.
    """
    return [
        (one_site(shared), _strongest([(site, optimizer.match(site)) for site in shared]))
        for shared in by_parameter(sites)
    ]


def _strongest(shared: list[tuple[Site, Match]], depth: int = 0) -> Match:
    """Of the matches of one parameter the one that holds; of nested mappings the outer key decides first."""
    if len(shared) == 1:
        return shared[0][1]
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
