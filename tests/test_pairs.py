"""The picker of crossings: every pair that any case has is in one that is picked, and few are."""

from __future__ import annotations

from itertools import product

import pytest
from gpu_steps import FORMATS
from pairs import crossed, pairs_of, picked
from rule_cases import CASES, switches

CROSSINGS = {
    "one of each": [("a", 1)],
    "two features": [*product("abc", range(3))],
    "many features": [*product("abc", range(3), (True, False), (True, False), range(4))],
    "what never meets": [(a, b, c) for a, b, c in product("abc", range(3), range(3)) if (a == "a") == (b == 0)],
    "rules and options": [(rule, *switches(option), form) for rule, option in CASES for form in FORMATS],
}


@pytest.mark.parametrize("name", CROSSINGS)
def test_every_pair_occurs(name: str) -> None:
    rows = CROSSINGS[name]
    chosen = picked(rows)
    assert chosen == sorted(set(chosen)) == picked(rows)
    found = set().union(*(pairs_of(rows[place]) for place in chosen))
    assert all(pair in found for row in rows for pair in pairs_of(row))


def test_few_of_many_are_enough() -> None:
    assert len(picked(CROSSINGS["two features"])) == 9
    assert len(picked(CROSSINGS["many features"])) <= 16  # of 144; the two longest features alone need 12
    assert len(picked(CROSSINGS["rules and options"])) <= len(CROSSINGS["rules and options"]) // 3


def test_features_of_two_kinds_meet_among_their_own() -> None:
    cases = [*product("abcd", range(3), (True, False))]
    params = crossed(cases, lambda a, b, c: (a, c), lambda a, b, c: (b, c))
    chosen = [p.values for p in params if not p.marks]
    assert {(a, c) for a, _, c in chosen} == {(a, c) for a, _, c in cases}
    assert {(b, c) for _, b, c in chosen} == {(b, c) for _, b, c in cases}
    assert len(chosen) == 8  # with those of the letters and the numbers there would be 12


def test_the_others_wait_and_none_is_lost() -> None:
    params = crossed([(a, b, c) for a, b, c in product("ab", "cd", "ef")] * 2)
    assert [p.values for p in params] == [*product("ab", "cd", "ef")]
    assert sum(not p.marks for p in params) == 4
