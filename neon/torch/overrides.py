"""Values that layers have of their own, kept in their group by the names of parameters.

As text, in every group from the start: what copies and loads groups (torch.distributed.checkpoint fills only the
keys that it finds) takes a string whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from neon.torch.messages import shown

KEY = "overrides"
NONE = "{}"
# No parameter's name. In a checkpoint such an entry says that averages stood in the place of weights of the group.
AVERAGED = ""


def overrides_of(group: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The values of a group's layers, by parameter name; raises `ValueError` for what is no such text."""
    try:
        found = json.loads(group.get(KEY, NONE))
    except (TypeError, json.JSONDecodeError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(own, dict) for own in found.values()):
        raise ValueError(
            f"A group's {KEY} must be a JSON object of objects, by parameter name. Received: {shown(group[KEY])}. Use "
            "set() and freeze() of the optimizer to write them."
        )
    return found


def as_text(overrides: Mapping[str, Mapping[str, Any]]) -> str:
    """What a group keeps of the values of its layers."""
    return json.dumps({name: own for name, own in overrides.items() if own})
