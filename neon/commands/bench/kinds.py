"""The kinds of measurement, as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from neon.commands.bench.backward import NETWORKS, measure_backward
from neon.commands.bench.few_bits import measure_rounding, measure_states
from neon.commands.bench.matrix_steps import MATRICES, measure_matrices
from neon.commands.bench.new_process import measure_memory, measure_start
from neon.commands.bench.results import Line, Result, Settings
from neon.commands.bench.statistics_cost import measure_statistics
from neon.commands.bench.step_alone import measure_step


@dataclass(frozen=True)
class Kind:
    """A measurement, what it is made for, and what of that a quick run measures; None: whatever the user chose.

    `not_rules` are those that a kind without `rules` cannot be made for. `seconds` is about what a line takes in a
    quick run, on two cores of today.
    """

    title: str
    measure: Callable[[Line, Settings], Result]
    rules: Sequence[str] | None = None
    shapes: Sequence[str] | None = ("large",)
    options: Sequence[str] | None = ("plain",)
    devices: Sequence[str] | None = ("cpu",)
    quick_rules: Sequence[str] = ("Adam",)
    quick_shapes: Sequence[str] | None = None
    seconds: float = 3.0
    not_rules: Sequence[str] = ()


_ROUNDING = "A step, bfloat16 with float32 states: rounded at random, to nearest, and split into two words"
_EXTRA = "Peak memory beyond parameters, gradients and states, bytes a parameter"
_KEPT = "Peak memory of weights and states, bytes a parameter"
_BACKWARD = "A step right after the backward pass of a small network"
_MATRICES = "A step over matrices, float32"
_STATISTICS = "A step that is looked at: float32, bfloat16 weights with float32 states, 8-bit states"
_SGD = "GradientDescentMomentum"
KINDS = {
    "step": Kind(
        "A step, float32", measure_step, shapes=None, options=None, devices=None,
        quick_rules=(_SGD, "Adam"), quick_shapes=("large", "tiny", "groups"), seconds=2.5,
    ),
    # Adafactor goes by the precision of the weight's format, which differs; Prodigy is refused to nearest.
    "rounding": Kind(_ROUNDING, measure_rounding, not_rules=("Adafactor", "Prodigy"), devices=None),
    "states": Kind(
        "A step, float32 with states of 8, 16 and 32 bits", measure_states, ("Adam", "AdamW"), devices=None, seconds=4
    ),
    "backward": Kind(_BACKWARD, measure_backward, (_SGD, "Adam", "AdamW"), tuple(NETWORKS), seconds=1.5),
    "start": Kind("The first step in a new process", measure_start, ("Adam",), ("mlp",), seconds=20),
    "memory": Kind(_EXTRA, measure_memory, seconds=8),
    "kept": Kind(_KEPT, measure_memory, (_SGD, "Adam"), seconds=6),
    "statistics": Kind(_STATISTICS, measure_statistics, (_SGD, "Adam", "AdamW"), devices=None, seconds=8),
    "matrices": Kind(
        _MATRICES, measure_matrices, ("Muon",), tuple(MATRICES),
        quick_rules=("Muon",), quick_shapes=("768x3072", "144-of-64x64"), seconds=6,
    ),
}  # fmt: skip
