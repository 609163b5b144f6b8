"""The kinds of measurement, as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neon.commands.bench.backward import NETWORKS, measure_backward
from neon.commands.bench.few_bits import measure_rounding, measure_states
from neon.commands.bench.matrix_steps import MATRICES, measure_matrices
from neon.commands.bench.new_process import measure_memory, measure_start
from neon.commands.bench.results import Line, Result, Settings
from neon.commands.bench.step_alone import measure_step


@dataclass(frozen=True)
class Kind:
    """A measurement, and what it is made for; None: whatever the user chose."""

    title: str
    measure: Callable[[Line, Settings], Result]
    rules: Sequence[str] | None = None
    shapes: Sequence[str] | None = ("large",)
    options: Sequence[str] | None = ("plain",)
    devices: Sequence[str] | None = ("cpu",)


_ROUNDING = "A step, bfloat16 with float32 states: rounded at random, to nearest, and split into two words"
_EXTRA = "Peak memory beyond parameters, gradients and states, bytes a parameter"
_KEPT = "Peak memory of weights and states, bytes a parameter"
_BACKWARD = "A step right after the backward pass of a small network"
_MATRICES = "A step over matrices, float32"
_SGD = "GradientDescentMomentum"
KINDS = {
    "step": Kind("A step, float32", measure_step, shapes=None, options=None, devices=None),
    "rounding": Kind(_ROUNDING, measure_rounding, devices=None),
    "states": Kind("A step, float32 with states of 8, 16 and 32 bits", measure_states, ("Adam", "AdamW"), devices=None),
    "backward": Kind(_BACKWARD, measure_backward, (_SGD, "Adam", "AdamW"), tuple(NETWORKS)),
    "start": Kind("The first step in a new process", measure_start, ("Adam",), ("mlp",)),
    "memory": Kind(_EXTRA, measure_memory),
    "kept": Kind(_KEPT, measure_memory, (_SGD, "Adam")),
    "matrices": Kind(_MATRICES, measure_matrices, ("Muon",), tuple(MATRICES)),
}
