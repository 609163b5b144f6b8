"""The formats that are shown side by side: what weights are kept as, what states are kept as, averages of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from neon.engine.program.formats import FORMATS
from neon.engine.program.options import AVERAGE

AS_GIVEN = "as given"


@dataclass(frozen=True)
class Form:
    """What weights and states are called, the dtype of weights (None: the model's own), and the values of groups."""

    weights: str
    states: str
    dtype: torch.dtype | None = None
    values: Mapping[str, Any] = field(default_factory=dict)


# What weights are kept as, with the options of groups that say so.
_WEIGHTS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {"stochastic_round": False, "master": None}),
    "bfloat16, at random": (torch.bfloat16, {"stochastic_round": True, "master": None}),
    "bfloat16, split": (torch.bfloat16, {"stochastic_round": False, "master": "split"}),
}
_DECAY_OF_AVERAGES = 0.999


def every_form() -> Iterator[Form]:
    """Weights in each format, with states in each, and an average of weights beside states in float32."""
    for weights, (dtype, options) in _WEIGHTS.items():
        for names in _state_formats():
            yield Form(weights, ", ".join(names), dtype, {**options, "state_dtype": names[0]})
        yield Form(weights, "float32, average", dtype, {**options, "state_dtype": None, AVERAGE: _DECAY_OF_AVERAGES})


def _state_formats() -> list[list[str]]:
    """The names of formats, those together that take as much, the widest first."""
    alike: dict[tuple[int, int], list[str]] = {}
    for form in FORMATS.values():
        names = alike.setdefault((-form.dtype.itemsize, form.block), [])
        if form.name not in names and form.dtype != torch.float64:
            names.append(form.name)
    return [sorted(alike[size]) for size in sorted(alike) if alike[size]]
