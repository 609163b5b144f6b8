"""What of a step a device decides and counts by itself, and what graphs of it go on with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neon.arguments import number
from neon.engine.backends import serving
from neon.engine.backends.resident import Resident
from neon.engine.plan import Plan
from neon.engine.program.spaces import OPTIMIZER
from neon.engine.settings import Item
from neon.stepping.group_rules import GroupRules
from neon.stepping.kept_numbers import deciding_device, placed


class OnDevice:
    """The one device that has all parameters, where a backend serves it that decides and counts there."""

    def __init__(self) -> None:
        self.resident: Resident | None = None
        self._device: torch.device | None = None
        self._skipped_before = 0  # on devices of before
        self._captured: list[Any] = []  # what graphs go by when they are replayed, whatever the plan is by then

    @property
    def skipped(self) -> int:
        """How many steps the device has left out, for which it is waited for."""
        return self._skipped_before + (0 if self.resident is None else int(self.resident.skipped.item()))

    def is_here(self, found: Any) -> bool:
        """Whether what decides on a step is a number on the device."""
        return isinstance(found, Tensor) and found.device == self._device

    def place(self, items: Sequence[Item], *, capturable: bool, found: Any) -> None:
        """Have counts lie on the device where graphs are to go on with them, or where `found` decides there."""
        devices = {item.param.device for item in items}
        if not devices:
            return
        if capturable and len(devices) > 1:
            named = ", ".join(sorted(map(str, devices)))
            raise ValueError(f"capturable=True needs all parameters on one device; they are on {named}.")
        self._device = device = deciding_device(devices)
        resident = None if device is None else serving(device).resident
        if self.resident is not None and self.resident.device != self._device:
            self._skipped_before, self.resident = self.skipped, None
        if self.resident is None and resident and device and (capturable or self.is_here(found)):
            self.resident = resident(device)

    def put_numbers(self, groups: Sequence[Any], rules: GroupRules) -> None:
        """Have the numbers of groups that persist lie on the device, an optimizer's once for all of its groups.

        Raises `ValueError` where these do not agree.
        """
        device = None if rules.partition else self._device  # of processes that have no parameter, one tells the others
        shared: dict[tuple[int, str], Any] = {}
        for group in groups:
            for name, state in rules.numbers_kept(group).items():
                if not isinstance(group.get(name), (float, Tensor)):
                    number(name, group.get(name))  # refuses by name what somebody wrote there
                value = placed(group[name], device)
                if state.of == OPTIMIZER:
                    first = shared.setdefault((id(rules.leaf_of(group)), name), value)
                    if first is not value and float(first) != float(value):
                        raise ValueError(
                            f"{name} is one number of all groups of an optimizer, and they have {float(first)!r} and "
                            f"{float(value)!r}: set it in all of them."
                        )
                    value = first
                group.write_quietly(name, value)

    def keep_captured(self, plan: Plan) -> None:
        """Keep what a graph that the last step went into works on."""
        self._captured += plan.kept_for_graphs


def fixed(value: Any, device: torch.device | None) -> bool:
    """Whether a value of a group cannot change without the group's knowledge, or lies on a device and is read there."""
    if isinstance(value, tuple):
        return all(fixed(item, device) for item in value)
    return isinstance(value, _IMMUTABLE) or (isinstance(value, Tensor) and value.device == device)


_IMMUTABLE = (int, float, bool, str, type(None))


def tells_all(group: dict[str, Any]) -> bool:
    """Whether no value can change without the group's knowledge, as lists, tensors and arrays can.

    Tensors on the device of the group's parameters need not tell where a backend reads them there, at each step.
    """
    values = (value for key, value in group.items() if key not in ("params", "param_names") and not fixed(value, None))
    first, params = next(values, None), group["params"]
    if first is None:
        return True
    device = params[0].device if params else None
    if device is None or serving(device).resident is None:
        return False
    return all(fixed(value, device) for value in (first, *values)) and all(p.device == device for p in params)
