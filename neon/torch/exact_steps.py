"""Counts of updates that a float32 `step` does not hold, kept beside it in the group.

Past 2²⁴ updates torch's `step` stands still or leaves numbers out. What random bits, bias corrections and schedules
go by is then written here as text, normally empty, in every group from the start (see `overrides`). An exact count
is believed where its rounding is what `step` shows: a count that somebody has written to `step` since then counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from neon.engine.counts import EXACT_IN_FLOAT32

KEY = "exact_steps"
NONE = "{}"


def exact_steps(group: Mapping[str, Any]) -> Mapping[str, float]:
    """The exact counts that a group has, by the names of parameters, or by their places as text."""
    text = group.get(KEY, NONE)
    found = _parsed(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(
            f"A group's {KEY} must be a JSON object of whole numbers, by parameter name. Received: {repr(text)[:80]}. "
            f"Set it to {NONE!r}: counts then go by the float32 step."
        )
    return found


@lru_cache(maxsize=8)
def _parsed(text: str) -> Mapping[str, float] | None:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and all(isinstance(n, int) for n in found.values()) else None


def keys_of(group: Mapping[str, Any]) -> Sequence[str]:
    """What the counts of a group's parameters go by: their names; their places where these do not fit."""
    places, names = range(len(group["params"])), group.get("param_names", ())
    return names if len(names) == len(places) else [*map(str, places)]


def write_down(groups: Sequence[dict[str, Any]], counts: Mapping[int, float]) -> None:
    """Have the groups say what float32 does not hold of these counts, which go by the ids of parameters."""
    if all(group.get(KEY, NONE) == NONE for group in groups) and max(counts.values(), default=0) <= EXACT_IN_FLOAT32:
        return
    for group in groups:
        params = {key: counts[id(p)] for key, p in zip(keys_of(group), group["params"], strict=True) if id(p) in counts}
        dict.__setitem__(group, KEY, _text({**exact_steps(group), **params}))  # no news for a plan


def taken_up(group: Mapping[str, Any], saved: Mapping[str, Any], numbers: Sequence[Any], states: Any) -> str:
    """What a group says that takes up a saved one, whose `numbers` are in the order of its own parameters."""
    known, keys = exact_steps(saved), keys_of(saved)
    if not {*keys} & {*known}:  # torch.distributed.checkpoint has put names in the place of numbers, or ours are places
        keys = [str(place) if str(place) in known else number for place, number in enumerate(saved["params"])]
    key_of = dict(zip(saved["params"], keys, strict=True))
    counts = {}
    for key, number in zip(keys_of(group), numbers, strict=False):
        step = float((states.get(number) or {}).get("step", 0))
        count = known.get(key_of[number], step)
        counts[key] = count if np.float32(count) == np.float32(step) else step
    return _text(counts)


def _text(counts: Mapping[str, float]) -> str:
    return json.dumps({key: int(count) for key, count in counts.items() if float(np.float32(count)) != count})
