"""Counts of updates that a float32 `step` does not hold, kept beside it in the group.

Past 2²⁴ updates torch's `step` stands still or leaves numbers out. What random bits, bias corrections and schedules
go by is then written to the text that every group has (see `overrides`). An exact count is believed where its rounding
is what `step` shows: a count that somebody has written to `step` since then counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from neon.engine.counts import EXACT_IN_FLOAT32
from neon.messages import shown
from neon.stepping.group_names import keys_of
from neon.stepping.overrides import KEY, as_text, of_group, overrides_of

_NAME = "exact_steps"


def exact_steps(group: Mapping[str, Any]) -> Mapping[str, float]:
    """The exact counts that a group has, by the names of parameters, or by their places as text."""
    found = of_group(group).get(_NAME, {})
    if not isinstance(found, dict) or not all(isinstance(count, int) for count in found.values()):
        raise ValueError(
            f"{_NAME} in a group's {KEY} must be whole numbers by parameter name. Received: {shown(found)}. Leave it "
            "out: counts then go by the float32 step."
        )
    return found


def write_down(groups: Sequence[dict[str, Any]], counts: Mapping[int, float]) -> None:
    """Have the groups say what float32 does not hold of these counts, which go by the ids of parameters."""
    if max(counts.values(), default=0) <= EXACT_IN_FLOAT32 and not any(map(exact_steps, groups)):
        return
    for group in groups:
        params = {key: counts[id(p)] for key, p in zip(keys_of(group), group["params"], strict=True) if id(p) in counts}
        dict.__setitem__(group, KEY, _text(group, {**exact_steps(group), **params}))  # no news for a plan


def loaded_text(group: Mapping[str, Any], saved: Mapping[str, Any], numbers: Sequence[Any], states: Any) -> str:
    """The text of a group that loads a saved one, whose `numbers` are in the order of its own parameters."""
    known, keys = exact_steps(saved), keys_of(saved)
    if not {*keys} & {*known}:  # torch.distributed.checkpoint has put names in the place of numbers, or ours are places
        keys = [str(place) if str(place) in known else number for place, number in enumerate(saved["params"])]
    key_of = dict(zip(saved["params"], keys, strict=True))
    counts = {}
    for key, number in zip(keys_of(group), numbers, strict=False):
        step = float((states.get(number) or {}).get("step", 0))
        count = known.get(key_of[number], step)
        counts[key] = count if np.float32(count) == np.float32(step) else step
    return _text(group, counts)


def _text(group: Mapping[str, Any], counts: Mapping[str, float]) -> str:
    lost = {key: int(count) for key, count in counts.items() if float(np.float32(count)) != count}
    return as_text(overrides_of(group), {_NAME: lost} if lost else None)
