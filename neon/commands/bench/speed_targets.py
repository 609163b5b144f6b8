"""The targets of the design, each with the lines that it is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from neon.commands.bench.lines import Line


@dataclass(frozen=True)
class Target:
    """A bound on a figure.

    Attributes:
        what: the words of the design.
        figure: the figure's name.
        bound: the least value of a figure of which more is better, else the largest.
        where: the values of a line's attributes that it is about.
        more_is_better: which side of the bound is good.
    """

    what: str
    figure: str
    bound: float
    where: Mapping[str, tuple[str, ...]]
    more_is_better: bool = False

    def covers(self, line: Line) -> bool:
        return all(getattr(line, attribute) in values for attribute, values in self.where.items())

    def met(self, value: float) -> bool:
        return value >= self.bound if self.more_is_better else value <= self.bound


def _target(bound: float, figure: str, what: str, *, more_is_better: bool = False, **where: str) -> Target:
    """Where names are several, they are separated by spaces."""
    return Target(what, figure, bound, {name: tuple(text.split()) for name, text in where.items()}, more_is_better)


_at_most, _at_least = _target, partial(_target, more_is_better=True)
_LIMIT, _TORCH = "share of the memory limit", "against torch's best"
_FUSED = "GradientDescentMomentum Adagrad Adam AdamW"
TARGETS = (
    _at_least(0.9, "of the limit", f"large: {_LIMIT}", kind="step", shape="large"),
    _at_least(0.85, "of the limit", f"bfloat16 rounded at random: {_LIMIT}", kind="rounding"),
    _at_most(1.05, "of rounding to nearest", "bfloat16: random by nearest rounding's time", kind="rounding"),
    _at_most(0.8, "8 of 32 bits", "8-bit Adam, AdamW: time of 32-bit states", kind="states"),
    _at_least(1.0, "speed-up", f"large, SGD, Adagrad, Adam, AdamW: {_TORCH}", kind="step", shape="large", rule=_FUSED),
    _at_least(1.5, "speed-up", f"large, RMSProp: {_TORCH}", kind="step", shape="large", rule="RMSProp"),
    _at_least(5.0, "speed-up", f"large, Adadelta: {_TORCH}", kind="step", shape="large", rule="Adadelta"),
    _at_least(1.3, "speed-up", f"ResNet-50 and GPT-2, clip by norm: {_TORCH}", shape="resnet50 gpt2", option="norm"),
    _at_least(20.0, "speed-up", f"200 tensors of 64: {_TORCH}", kind="step", shape="tiny", device="cpu"),
    _at_most(50e-6, "seconds", "200 tensors of 64: a step", kind="step", shape="tiny", device="cpu"),
    _at_most(100e-6, "host seconds", "500 tensors on a GPU: the host", kind="step", shape="groups", device="cuda xpu"),
    _at_most(1.3, "of one group", "500 groups: time of one group", kind="step", shape="groups"),
    _at_most(0.7, "of torch's fused", "after a backward pass: time of torch's fused", kind="backward"),
    _at_most(1.0, "empty cache", "first step, empty kernel cache", kind="start"),
    _at_most(0.3, "filled cache", "first step, filled kernel cache", kind="start"),
    # None that grows with the model. A page here and there does not: a twentieth of a byte a parameter.
    _at_most(0.05, "neon plain", "extra memory: bytes a parameter", kind="memory"),
    _at_most(0.05, "neon norm", "extra memory, clip by norm: bytes a parameter", kind="memory"),
    _at_most(0.05, "neon value", "extra memory, clip by value: bytes a parameter", kind="memory"),
)
