"""Values that layers have of their own, kept in their group by the names of parameters.

As text, in every group from the start: what copies and loads groups takes a string whole. torch.distributed.checkpoint
fills only the keys that an optimizer has when it is made, and asks for all of these in the checkpoint: what few
groups need, and what checkpoints of earlier versions lack, is in this text too.
"""

from __future__ import annotations

import json
from collections import ChainMap
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from neon.engine.program.options import SCALE
from neon.messages import shown

KEY = "overrides"
NONE = "{}"
# No parameter's name: this entry is about the group itself.
_GROUP = ""
# There in a checkpoint: that averages stood in the place of weights of the group.
AVERAGED = "averaged"


def overrides_of(group: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The values of a group's layers, by parameter name; raises `ValueError` for what is no such text."""
    return {name: {**own} for name, own in read(group).items() if name != _GROUP}


def of_group(group: Mapping[str, Any]) -> dict[str, Any]:
    """What the text says of the group itself."""
    return {**read(group).get(_GROUP, {})}


def read(group: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The whole text, not to be written to: one that has been read before is not read again."""
    text = group.get(KEY, NONE)
    found = _parsed(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(
            f"A group's {KEY} must be a JSON object of objects, by parameter name. Received: {shown(text)}. Use "
            "set() and freeze() of the optimizer to write them."
        )
    return found


@lru_cache(maxsize=64)
def _parsed(text: str) -> Mapping[str, Mapping[str, Any]] | None:
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        return None
    return found if isinstance(found, dict) and all(isinstance(own, dict) for own in found.values()) else None


def as_text(overrides: Mapping[str, Mapping[str, Any]], group: Mapping[str, Any] | None = None) -> str:
    """What a group keeps of the values of its layers, and of itself."""
    return json.dumps({name: own for name, own in {**overrides, _GROUP: group}.items() if own})


def values_over(own: Mapping[str, Any] | None, group: dict[str, Any]) -> Mapping[str, Any]:
    """The values that a parameter goes by: what it has of its own, over those of its group, which stay the group's."""
    return ChainMap({**own}, group) if own else group


def with_scale(group: dict[str, Any]) -> dict[str, Any]:
    """A group for a checkpoint: the multiplier of its rate is in the text, for not every group has it as a value."""
    scale = float(group.get(SCALE, 1.0))
    return group | {KEY: as_text(overrides_of(group), {**of_group(group), SCALE: scale})}


class Rows:
    """The values that parameters go by: their group's, and over them what was set for some layers of it.

    `listed` has the place of the group and the values, which are read anew at each step, for each row.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.listed: list[tuple[int, Mapping[str, Any]]] = []
        self._groups = groups
        self._overrides = list(map(read, groups))
        self._found: dict[tuple[int, str], int] = {}

    def of(self, place: int, name: str) -> int | None:
        """The row of a parameter; None where it is frozen."""
        own = self._overrides[place].get(name)
        if own and own.get("frozen"):
            return None
        row = self._found.setdefault((place, repr(own) if own else ""), len(self.listed))
        if row == len(self.listed):
            self.listed.append((place, values_over(own, self._groups[place])))
        return row
