"""Promises on names, words and rules that no other file tests; every reference is written out in float64."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from constructors import RULES, described, shaped
from torch import nn

import neon.layers
from neon import optimizers
from neon.optimizers import AdamW, GradientDescentMomentum, Optimizer, Schedule, Transform

# -- names and words -------------------------------------------------------------------------------

NAMES = (
    "GradientDescentMomentum", "RMSProp", "RMSprop", "Adagrad", "Adadelta", "Adam", "ShiftAdaMax", "MultiOptimizer",
    "Optimizer", "Schedule", "StepSchedule", "PowerSchedule", "ExpSchedule", "PolySchedule", "ShiftSchedule",
    "get_param_list",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_documented_names_import(name: str) -> None:
    assert name in optimizers.__all__
    assert callable(getattr(optimizers, name))


def words(function: Callable[..., Any]) -> list[str]:
    """What can be given by position, in order, by the words that it can be given by too."""
    named = inspect.signature(function).parameters.values()
    return [p.name for p in named if p.kind is p.POSITIONAL_OR_KEYWORD]


METHODS: dict[str, tuple[Callable[..., Any], str]] = {
    "optimize": (Optimizer.optimize, "self layer_list epoch"),
    "clip_gradient_value": (Optimizer.clip_gradient_value, "self grad clip_value"),
    "clip_gradient_norm": (Optimizer.clip_gradient_norm, "self param_list clip_norm"),
    "get_learning_rate": (Schedule.get_learning_rate, "self learning_rate epoch"),
    "get_param_list": (optimizers.get_param_list, "layer_list"),
    "Schedule": (Schedule, "step_config change"),
    "StepSchedule": (optimizers.StepSchedule, "step_config change"),
    "PowerSchedule": (optimizers.PowerSchedule, "step_config change"),
    "ExpSchedule": (optimizers.ExpSchedule, "decay"),
    "PolySchedule": (optimizers.PolySchedule, "total_epochs power"),
    "ShiftSchedule": (optimizers.ShiftSchedule, "interval shift_size"),
}


@pytest.mark.parametrize("name", METHODS)
def test_documented_methods(name: str) -> None:
    function, expected = METHODS[name]
    assert words(function) == expected.split()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Linear", "nout init name"),
        ("Bias", "init name"),
        ("Activation", "transform name"),
        ("Affine", "nout init bias activation name"),
    ],
)
def test_documented_layers(name: str, expected: str) -> None:
    """What is documented comes first, in this order; more may follow."""
    found = words(getattr(neon.layers, name))
    assert found[: len(expected.split())] == expected.split()


# -- rules -----------------------------------------------------------------------------------------


class Plain:
    def __init__(self, values: Any, gradient: Any) -> None:
        self.w, self.g = (torch.tensor(given, dtype=torch.float64) for given in (values, gradient))
        self.states: list[torch.Tensor] = []

    def get_params(self) -> Any:
        return (self.w, self.g), self.states


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("how", ["optimize", "attach"])
def test_a_velocity_holds_the_rate(how: str, nesterov: bool) -> None:
    """v' = γv − αg with the α of each update: a change of α changes what comes, not what v holds."""
    rates, g = [0.5, 0.125, 2.0, 0.0], 0.75
    opt = GradientDescentMomentum(0.5, 0.75, schedule=Schedule([1, 2, 3], rates[1:]), nesterov=nesterov)
    layer, p = Plain([1.0], [g]), nn.Parameter(torch.ones(1, dtype=torch.float64))
    attached = opt.attach([p]) if how == "attach" else None
    w, v = 1.0, 0.0
    for epoch, rate in enumerate(rates):
        if attached is None:
            opt.optimize([layer], epoch)
        else:
            attached.set_epoch(epoch)
            p.grad = layer.g.clone()
            attached.step()
        v = 0.75 * v - rate * g
        w += 0.75 * v - rate * g if nesterov else v
        found = (layer.w if attached is None else p).item()
        assert found == pytest.approx(w, rel=1e-15)


def test_what_acts_when() -> None:
    """Mean over the batch, norm, value, decay, rule, and last the clip of the parameter: by hand, in float64."""
    w, g = np.array([3.0, -2.0, 0.25]), np.array([30.0, -40.0, 1.0])
    layer, size = Plain(w, g), 10
    opt = GradientDescentMomentum(
        0.5, 0.5, wdecay=0.1, gradient_clip_norm=2.5, gradient_clip_value=1.75, param_clip_value=-1.5
    )
    opt.be.bsz = size
    v = np.zeros(3)
    for _ in range(3):
        opt.optimize([layer], 0)
        mean = g / size
        scaled = mean * min(1.0, 2.5 / np.sqrt((mean**2).sum()))
        v = 0.5 * v - 0.5 * (scaled.clip(-1.75, 1.75) + 0.1 * w)
        w = (w + v).clip(-1.5, 1.5)
        np.testing.assert_allclose(layer.w.numpy(), w, rtol=1e-14)
        np.testing.assert_allclose(layer.states[0].numpy(), v, rtol=1e-14)
    assert abs(layer.w).max() == 1.5


def test_shift_adamax_corrects_by_the_epoch() -> None:
    """t = epoch + 1, however many updates there have been; the shifts are powers of two."""

    def shift(a: float, b: float) -> float:
        return float(a * np.sign(b) * 2.0 ** np.rint(np.log2(abs(b))))

    layer, opt = Plain([0.5], [0.375]), optimizers.ShiftAdaMax(learning_rate=0.02, beta_1=0.75, beta_2=0.5)
    w, m, v = 0.5, 0.0, 0.0
    for epoch, g in [(0, 0.375), (0, -0.5), (3, 0.25), (1, 0.125), (40, -2.0)]:
        layer.g.fill_(g)
        opt.optimize([layer], epoch)
        m, v = 0.75 * m + 0.25 * g, max(0.5 * v, abs(g))
        w = float(np.clip(w - shift(shift(m, 1 / (v + 1e-8)), 0.02 / (1 - 0.75 ** (epoch + 1))), -1, 1))
        assert layer.w.item() == w


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_follows_its_schedule(rule: str) -> None:
    """Also those whose documented constructor has none: the rate of each epoch is that of the schedule."""

    def make(rate: float, **options: Any) -> Optimizer:
        return described(
            rule,
            **({"inner": AdamW(learning_rate=rate)} if issubclass(RULES[rule], Transform) else {"learning_rate": rate}),
            **options,
        )

    shape = shaped(rule, 2)
    scheduled, layer, control = (
        make(0.25, schedule=Schedule([1, 3], [0.5, 0.0625])),
        *(Plain(np.reshape([0.5, -0.25], shape), np.reshape([0.75, 0.5], shape)) for _ in range(2)),
    )
    for epoch, rate in enumerate([0.25, 0.5, 0.5, 0.0625]):
        scheduled.optimize([layer], epoch)
        make(rate).optimize([control], epoch)
    assert torch.equal(layer.w, control.w)
    assert layer.w.view(-1)[0] != 0.5
