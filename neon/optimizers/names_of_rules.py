"""What rules of neon call their states and numbers: by these a checkpoint of another rule is known."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any


def names_of_rules(base: Any) -> tuple[set[str], list[set[str]]]:
    """The states of all rules of neon's classes below this one, and what groups call the numbers of each."""
    states, words, classes = set[str](), list[set[str]](), [base]
    while classes:
        made = classes.pop()
        classes += made.__subclasses__()
        if made.__module__.startswith("neon.") and (found := _states_of(made)) is not None:
            states |= found
            words.append({*made._declared.words})
    return states, words


@cache
def _states_of(made: Any) -> set[str] | None:
    """The states of a class's rule, or of what it puts around one; None where it has neither."""
    rule = getattr(made, "around", None) or made.rule
    if rule is None:
        return None
    positional = (p.name for p in inspect.signature(rule).parameters.values() if p.kind is not p.KEYWORD_ONLY)
    return {*positional} - {"inner", "w", "g"}
