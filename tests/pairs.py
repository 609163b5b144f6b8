"""Crossings of features: those cases in which every pair of features meets; `--all` runs the others too.

A feature is anything that a case has: a rule, a format, an option that is switched on. Mistakes that need
three features together are rare; that two of them do not go together is what a crossing finds.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import combinations
from typing import Any

import pytest

Features = tuple[Hashable, ...]


def pairs_of(features: Features) -> set[Hashable]:
    """The features that a case has two by two, each with its place."""
    return {*combinations(enumerate(features), 2)}


def picked(rows: list[Any], of: Callable[[Any], set[Hashable]] = pairs_of) -> list[int]:
    """Places of rows that have every pair of all rows: at each turn the first that adds most."""
    pairs = [of(row) for row in rows]
    missing, found = set[Hashable]().union(*pairs), list[int]()
    while missing:
        best = max(range(len(rows)), key=lambda place: len(pairs[place] & missing))
        found.append(best)
        missing -= pairs[best]
    return sorted(found)


def _pairs_of_each(rows: tuple[Features, ...]) -> set[Hashable]:
    return {(number, pair) for number, features in enumerate(rows) for pair in pairs_of(features)}


def crossed(cases: Iterable[tuple[Any, ...]], *features: Callable[..., Features]) -> list[Any]:
    """All cases, as pytest takes them; what is not picked by its features waits for `--all`.

    Of several functions, each gives features that are to meet among themselves; of none, those are the case.
    """
    cases = list(dict.fromkeys(cases))
    kinds = features or (lambda *case: case,)
    chosen = {*picked([tuple(kind(*case) for kind in kinds) for case in cases], _pairs_of_each)}
    return [
        pytest.param(*case, marks=() if place in chosen else pytest.mark.crossing) for place, case in enumerate(cases)
    ]
