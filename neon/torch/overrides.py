"""Values that layers have of their own, kept in their group by the names of parameters.

As text, in every group from the start: what copies and loads groups (torch.distributed.checkpoint fills only the
keys that it finds) takes a string whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

KEY = "overrides"
NONE = "{}"


def overrides_of(group: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The values of a group's layers, by parameter name; raises `ValueError` for what is no such text."""
    return {name: {**own} for name, own in read(group).items()}


def read(group: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The same, not to be written to: a text that has been read before is not read again."""
    text = group.get(KEY, NONE)
    found = _parsed(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError(
            f"A group's {KEY} must be a JSON object of objects, by parameter name. Received: {repr(text)[:80]}. Use "
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


def as_text(overrides: Mapping[str, Mapping[str, Any]]) -> str:
    """What a group keeps of the values of its layers."""
    return json.dumps({name: own for name, own in overrides.items() if own})
