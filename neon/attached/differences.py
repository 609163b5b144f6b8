"""Differences between a checkpoint and an optimizer, in few words however many there are."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from neon.messages import shortened, shown

_LINES, _LINE, _NAME, _NAMES = 250, 190, 40, 3  # characters of all differences, of one, of a name; names shown


def some(names: Iterable[Any], others: Iterable[str] = ()) -> str:
    """A few names and how many more; each with the nearest of the others."""
    names, others = list(names), list(others)
    few = []
    for name in names[:_NAMES]:
        near = get_close_matches(name, others, 1) if isinstance(name, str) else []
        few.append(shown(name, _NAME) + (f" (near {shown(near[0], _NAME)})" if near else ""))
    return and_more(few, len(names))


def and_more(few: list[str], count: int) -> str:
    """A few of a number of things, and how many more there are."""
    return ", ".join(few) + (f" and {count - len(few)} more" if count > len(few) else "")


def refuse(differences: Iterable[str]) -> None:
    """Raise `ValueError` if there are differences between a checkpoint and an optimizer, with the first of them."""
    lines = list(differences)
    if not lines:
        return
    few = [shortened(lines[0], _LINE if len(lines) > 1 else _LINES)]
    for line in lines[1:]:
        if sum(map(len, few)) + len(line) > _LINES:
            break
        few.append(line)
    if len(few) < len(lines):
        few.append(f"... and {len(lines) - len(few)} more")
    raise ValueError(
        "The checkpoint does not fit this optimizer. Nothing of it was loaded.\n"
        + "".join(f"  {line}\n" for line in few)
        + "Load it into an optimizer made as the one that saved it; what has been renamed since, a hook can put right: "
        "register_load_state_dict_pre_hook."
    )
