"""The numbers of rules that persist: where they lie, and with which layers: over layer lists they are the model's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from neon.assignment.param_list import Entry
from neon.engine.backends import serving


def deciding_device(devices: Iterable[torch.device]) -> torch.device | None:
    """The one device of all parameters, where a backend serves it that keeps numbers there; else the host does."""
    found = {*devices}
    return next(iter(found)) if len(found) == 1 and serving(*found).resident is not None else None


def placed(value: Any, device: torch.device | None) -> Any:
    """A number as it is kept: a float, or a tensor on the device, which is written to there."""
    if device is None:
        return float(value)
    if isinstance(value, Tensor) and value.device == device and value.dtype == torch.float64:
        return value
    return torch.tensor(float(value), dtype=torch.float64, device="cpu").to(device)


def numbers_of(entry: Entry) -> dict[str, Any]:
    """The numbers that a step has kept with a parameter of a layer list."""
    return getattr(_holder(entry), "_neon_numbers", {})


def keep_numbers(entries: Iterable[Entry], numbers: dict[str, Any]) -> None:
    """Keep numbers with all parameters that they are of."""
    for entry in entries:
        _holder(entry)._neon_numbers = dict(numbers)  # type: ignore[attr-defined]


def _holder(entry: Entry) -> Tensor:
    (param, _), states = entry
    return states[0] if states else param
