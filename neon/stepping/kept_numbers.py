"""The numbers of rules that persist, over layer lists: kept with the states of the layers, for they are the model's."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from neon.assignment.param_list import Entry


def numbers_of(entry: Entry) -> dict[str, float]:
    """The numbers that a step has kept with a parameter of a layer list."""
    return getattr(_holder(entry), "_neon_numbers", {})


def keep_numbers(entries: Iterable[Entry], numbers: dict[str, float]) -> None:
    """Keep numbers with all parameters that they are of."""
    for entry in entries:
        _holder(entry)._neon_numbers = dict(numbers)  # type: ignore[attr-defined]


def _holder(entry: Entry) -> Tensor:
    (param, _), states = entry
    return states[0] if states else param
