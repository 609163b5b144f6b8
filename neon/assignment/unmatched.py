"""Keys that fit nothing: which ones, and what a message says of them and of what there is instead."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from neon.assignment.description import Description
from neon.assignment.keys import fitting_keys, is_pattern, strongest_key
from neon.assignment.matrix_layers import ROLES
from neon.assignment.sites import NAMED, Site
from neon.messages import LONGEST, listed, shortened


class _Use(NamedTuple):
    """A mapping with the keys that lead to it, of each use, and the sites that come to it by any of them."""

    mapping: Description
    paths: list[str]
    sites: list[Site]


def explain_unmatched(mapping: Description, sites: Sequence[Site]) -> str | None:
    """What is wrong with keys, of nested mappings too, that fit no site; None where each fits one."""
    missing = [(use, keys) for use in _uses(mapping, sites) if (keys := _missing(use))]
    if not missing:
        return None
    (use, keys), *others = missing
    plural = len(keys) > 1
    names = listed(map(repr, keys), 80)
    if use.paths == [""]:
        text = f"no layer fits the key{'s' * plural} {names}"
    else:
        below = listed((repr(path) for path in use.paths), 60)
        text = f"the key{'s' * plural} {names} fit{'s' * (not plural)} nothing below {below}"
    if others:
        text += f", nor do {listed((repr(f'{use.paths[0]}/{key}') for use, keys in others for key in keys), 60)}"
    remedy = "Correct or remove the key."
    if not {*ROLES}.isdisjoint(keys) and all(site.kind == NAMED for site in sites):
        remedy = "What a layer is a module knows: attach the model itself."
    return f"MultiOptimizer: {text}.{what_there_is(keys, use.sites, len(text) + 18 + len(remedy))} {remedy}"


def _uses(mapping: Description, sites: Sequence[Site]) -> list[_Use]:
    """Every mapping once, however many keys lead to it: the outermost first."""
    found: dict[Description, _Use] = {}

    def visit(mapping: Description, path: str, sites: Sequence[Site]) -> None:
        use = found.setdefault(mapping, _Use(mapping, [], []))
        use.paths.append(path)
        use.sites.extend(sites)
        keys = mapping._optimizers_by_key or {}
        nested = {k: value for k, value in keys.items() if value is not None and value._optimizers_by_key is not None}
        strongest = [strongest_key(keys, site) for site in sites] if nested else []
        for key, value in nested.items():
            below = [site for site, chosen in zip(sites, strongest, strict=True) if chosen and chosen[2] == key]
            visit(value, f"{path}/{key}" if path else key, below)

    visit(mapping, "", sites)
    return [*found.values()]


def _missing(use: _Use) -> list[str]:
    """The keys of a mapping, beside its default, that fit none of its sites."""
    keys = use.mapping._optimizers_by_key or {}
    fitting = {key for site in use.sites for key in fitting_keys(keys, site)}
    return [key for key in keys if key not in fitting and key != "default"]


def what_there_is(keys: Iterable[str], sites: Sequence[Site], used: int = 100) -> str:
    """The names and classes that keys could fit, those that are like them first, in a message that has `used` so much.

    >>> what_there_is(["haed"], [Site("head", "Linear", ("head.weight", "head"), ("Linear",))])
    " Did you mean 'head'? Names here: head, head.weight. Classes here: Linear."
    """
    # What stands further out comes first: it says most about the rest.
    names = sorted(dict.fromkeys(name for site in sites for name in site.names), key=lambda name: name.count("."))
    classes = [*dict.fromkeys(name for site in sites for name in site.classes)]
    plain = [key for key in keys if not is_pattern(key)]
    close = [c for key in plain[:3] for c in get_close_matches(key, names + classes, 1) if c != key]
    hint = f" Did you mean {', '.join(repr(shortened(c, 40)) for c in close[:2])}?" if close else ""
    kinds = listed(classes, 70)
    room = LONGEST - used - len(hint) - len(kinds) - 54
    return f"{hint} Names here: {listed(names, max(room, 20))}. Classes here: {kinds}."
