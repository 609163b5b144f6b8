"""What is promised of numbers: too large, of the wrong kind, written to an optimizer later, rounded at random."""

# pyright: reportArgumentType=false
# the tables pass wrong types on purpose

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import neon.torch
from neon.backends import gen_backend
from neon.optimizers import (
    Adam,
    ExpSchedule,
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
    PolySchedule,
    PowerSchedule,
    Schedule,
    ShiftSchedule,
    StepSchedule,
    WarmupCosine,
    get_param_list,
)

HUGE = 10**400  # Python has no float for it


class Plain:
    def __init__(self, name: str = "plain", dtype: torch.dtype = torch.float64, size: int = 1) -> None:
        self.w, self.g = torch.ones(size, dtype=dtype), torch.ones(size, dtype=dtype)
        self.name = name
        self.states: list[Any] = []

    def get_params(self) -> Any:
        return (self.w, self.g), self.states


class Mine(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any = 0.1, power: Any = 2, pair: Any = (1, 2)) -> Any:
        return w - lr * power * pair[0] * g


def rule_with(**defaults: Any) -> Optimizer:
    def rule(w: Any, g: Any, *, lr: Any = defaults["lr"]) -> Any:
        return w - lr * g

    return type("WithDefault", (Optimizer,), {"rule": staticmethod(rule)})()


def group(**values: Any) -> Any:
    return Adam().attach([{"params": [nn.Parameter(torch.ones(2))], **values}])


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a rate": (lambda: Adam(learning_rate=HUGE), ValueError, "learning_rate must be a finite number"),
    "a fraction": (lambda: Adam(learning_rate=Fraction(HUGE)), ValueError, "learning_rate must be a finite number"),
    "below zero": (lambda: Adam(wdecay=-HUGE), ValueError, "wdecay must be a finite number of at least 0"),
    "a beta": (lambda: Adam(beta_1=HUGE), ValueError, r"beta_1 must be in the interval \[0, 1\)"),
    "a seed": (lambda: Adam(seed=2**64), ValueError, r"seed must be less than 2\*\*64"),
    "a batch": (lambda: gen_backend(batch_size=HUGE), ValueError, r"batch_size must be less than 2\*\*64"),
    "an epoch": (lambda: Adam().optimize([Plain()], HUGE), ValueError, "epoch must be a finite number"),
    "an epoch of an attached one": (
        lambda: Adam().attach(nn.Linear(1, 1)).set_epoch(HUGE),
        ValueError,
        "epoch must be a finite number",
    ),
    "a rate of a drop-in": (lambda: neon.torch.Adam([nn.Parameter(torch.ones(2))], HUGE), ValueError, "lr must be"),
    "a rate of a group": (lambda: group(lr=HUGE), ValueError, "lr must be a finite number"),
    "a number of one's own rule": (lambda: Mine(power=HUGE), ValueError, "power must be a number that a float can"),
    "one below zero": (lambda: Mine(power=-HUGE), ValueError, "power must be a number that a float can hold"),
    "one in a pair": (lambda: Mine(pair=(1, HUGE)), ValueError, "pair must be a number that a float can hold"),
    "an epoch of a schedule": (lambda: Schedule([HUGE], 0.5), ValueError, r"step_config must be less than 2\*\*64"),
    # a duration is a whole number to Python's `numbers`, but its unit says otherwise
    "a duration": (lambda: Adam(learning_rate=np.timedelta64(1, "s")), TypeError, "learning_rate must be a number"),
    "a decimal": (lambda: Adam(learning_rate=Decimal("0.1")), TypeError, r"Received: learning_rate=Decimal\('0\.1'\)"),
    # the defaults of a rule are its numbers too
    "a default below zero": (lambda: rule_with(lr=-1.0), ValueError, r"lr must be.*at least 0\. Received: lr=-1\.0"),
    "a default that is NaN": (lambda: rule_with(lr=math.nan), ValueError, "lr must be a finite number.*nan"),
}


@pytest.mark.parametrize("title", REFUSED)
def test_numbers_that_are_none_are_refused_by_name_at_once(title: str) -> None:
    action, error, words = REFUSED[title]
    with pytest.raises(error, match=words) as caught:
        action()
    assert caught.type is error
    assert len(str(caught.value)) < 500


def test_what_is_nearly_too_large_is_taken() -> None:
    most = 2**1024 - 2**970 - 1
    assert float(most) == np.finfo(np.float64).max
    assert Mine(power=most).hyperparameters()["power"] == most
    assert Adam(seed=2**64 - 1).seed == 2**64 - 1
    assert Adam(learning_rate=Fraction(1, 4)).learning_rate == 0.25


# -- the batch size --------------------------------------------------------------------------------

SIZES: list[tuple[Any, type[Exception]]] = [
    (0, ValueError),
    (-1, ValueError),
    (2.5, TypeError),
    ("4", TypeError),
    (None, TypeError),
    (True, TypeError),
    (math.nan, TypeError),
    (HUGE, ValueError),
]


@pytest.mark.parametrize("mapping", [False, True])
@pytest.mark.parametrize(("size", "error"), SIZES, ids=[f"{size!r:.8}" for size, _ in SIZES])
def test_the_batch_size_of_a_backend_of_ones_own_is_checked(size: Any, error: type[Exception], mapping: bool) -> None:
    """0 would make infinities of the weights, and −1 go up the gradient."""
    layer = Plain()
    opt: Optimizer = GradientDescentMomentum(1.0, 0.5)
    opt = MultiOptimizer({"default": opt}, gradient_clip_norm=1.0) if mapping else opt
    opt.be = SimpleNamespace(bsz=size)  # type: ignore[assignment]
    with pytest.raises(error, match=r"^be\.bsz must be"):
        opt.optimize([layer], 0)
    with pytest.raises(error, match=r"^be\.bsz must be"):
        opt.clip_gradient_norm(get_param_list([layer]), 1.0)
    assert (layer.w.item(), layer.states) == (1, [])


@pytest.mark.parametrize("size", [np.int64(4), np.array(4), np.uint8(4)])
def test_it_may_be_numpys(size: Any) -> None:
    layer, opt = Plain(), GradientDescentMomentum(1.0, 0.0)
    opt.be = SimpleNamespace(bsz=size)  # type: ignore[assignment]
    opt.optimize([layer], 0)
    assert layer.w.item() == 0.75


def test_an_attached_optimizer_takes_gradients_as_they_are() -> None:
    """Whatever the batch size: torch's losses average already."""
    gen_backend(batch_size=128)
    layer, p = Plain(), nn.Parameter(torch.ones(1, dtype=torch.float64))
    p.grad = layer.g.clone()
    for opt in (GradientDescentMomentum(0.5, 0.0), MultiOptimizer({"default": GradientDescentMomentum(0.5, 0.0)})):
        opt.attach([p]).step()
        opt.optimize([layer], 0)
    assert p.item() == 0
    assert layer.w.item() == 1 - 2 * 0.5 / 128


# -- what is written to an optimizer later ---------------------------------------------------------

LATER: dict[str, tuple[Any, type[Exception], str]] = {
    "learning_rate": (-1.0, ValueError, r"learning_rate must be.*-1\.0"),
    "momentum_coef": (2.0, ValueError, r"momentum_coef must be.*2\.0"),
    "nesterov": (1, TypeError, "nesterov must be True or False"),
    "wdecay": ("a", TypeError, "weight_decay must be a number"),
    "schedule": (None, TypeError, r"schedule must have get_learning_rate\(learning_rate, epoch\)\. Received: .*None"),
    "gradient_clip_norm": (-1, ValueError, "gradient_clip_norm must be"),
    "gradient_clip_value": (math.nan, ValueError, "gradient_clip_value must be"),
    "param_clip_value": (0, ValueError, "param_clip_value must be"),
    "stochastic_round": ("yes", TypeError, "stochastic_round must be True, False"),
    "maximize": (1, TypeError, "maximize must be True or False"),
    "lr_scale": (-1, ValueError, "lr_scale must be"),
    "weight_average": (2, ValueError, "weight_average must be"),
}


@pytest.mark.parametrize("when", ["first", "later"])
@pytest.mark.parametrize("name", LATER)
def test_an_attribute_that_is_spoiled_is_refused_by_name_and_whole(name: str, when: str) -> None:
    value, error, words = LATER[name]
    layers, bad = [Plain("a"), Plain("b")], GradientDescentMomentum(0.1, 0.9)
    opt = MultiOptimizer({"default": GradientDescentMomentum(0.1, 0.9), "b": bad})
    if when == "later":
        opt.optimize(layers, 0)
    before = [[layer.w.item(), *(state.item() for state in layer.states)] for layer in layers]

    def spoil() -> None:
        setattr(bad, name, value)  # a number that the class declares is refused here, an option by the step
        opt.optimize(layers, 0)

    with pytest.raises(error, match=words):
        spoil()
    assert [[layer.w.item(), *(state.item() for state in layer.states)] for layer in layers] == before


# -- schedules -------------------------------------------------------------------------------------

SCHEDULES = [
    Schedule(),
    Schedule([2, 6], 0.5),
    StepSchedule([2], [0.5]),
    PowerSchedule(2, 0.5),
    ExpSchedule(1.0),
    PolySchedule(10, 2),
    ShiftSchedule(2),
    WarmupCosine(2, 6),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_a_schedule_is_asked_for_an_epoch_that_there_is(schedule: Schedule) -> None:
    for epoch in (-1, -0.5, math.nan, math.inf, HUGE):
        with pytest.raises(ValueError, match=r"^epoch must be a finite number of at least 0\."):
            schedule.get_learning_rate(1.0, epoch)
    for word in ("1", None, True, [1]):
        with pytest.raises(TypeError, match=r"^epoch must be a number\."):
            schedule.get_learning_rate(1.0, word)
    for rate in ("1.0", None, True, [0.1]):
        with pytest.raises(TypeError, match=r"^learning_rate must be a number\."):
            schedule.get_learning_rate(rate, 1)


def test_a_rate_that_grows_beyond_every_number_is_infinite_and_refused_by_the_step() -> None:
    for schedule in (Schedule(1, 2.0), PowerSchedule(1, 2.0), Schedule([*range(1, 2000)], 1e10)):
        assert schedule.get_learning_rate(1.0, 5000) == math.inf
        layer = Plain()
        with pytest.raises(ValueError, match=r"^lr must be a finite number of at least 0\. Received: lr=inf"):
            GradientDescentMomentum(1.0, 0.5, schedule=schedule).optimize([layer], 5000)
        assert (layer.w.item(), layer.states) == (1, [])
    assert ShiftSchedule(1).get_learning_rate(1.0, 5000) == 0


# -- rounding at random ----------------------------------------------------------------------------

# format, stochastic_round: the spacing of what is written just above 1
SPACINGS: dict[str, tuple[torch.dtype, Any, float]] = {
    "bfloat16, its own width": (torch.bfloat16, True, 2.0**-7),
    "bfloat16, 3 bits": (torch.bfloat16, 3, 2.0**-3),
    "bfloat16, more bits than it has": (torch.bfloat16, 10, 2.0**-7),
    "float16, its own width": (torch.float16, True, 2.0**-10),
    "float32, 10 bits": (torch.float32, 10, 2.0**-10),
    "float32, 10 bits, numpy's": (torch.float32, np.int64(10), 2.0**-10),
    "float32, 1 bit": (torch.float32, 1, 2.0**-1),
}
SAMPLES = 200_000


@pytest.mark.parametrize("title", SPACINGS)
def test_what_is_written_is_one_of_two_neighbours_and_right_on_average(title: str) -> None:
    """A quarter of the spacing above 1: one in four goes up, within five standard deviations."""
    dtype, width, spacing = SPACINGS[title]
    layer = Plain(dtype=dtype, size=SAMPLES)
    layer.g.fill_(-spacing / 4)
    GradientDescentMomentum(1.0, 0.0, stochastic_round=width).optimize([layer], 0)
    assert layer.w.double().unique().tolist() == [1, 1 + spacing]
    share = (layer.w > 1).double().mean().item()
    assert share == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / SAMPLES))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_true_changes_nothing_where_nothing_is_lost(dtype: torch.dtype) -> None:
    rounded, plain = (Plain(dtype=dtype, size=1000) for _ in range(2))
    for layer in (rounded, plain):
        layer.g = torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=dtype)
    for _ in range(3):
        Adam(stochastic_round=True).optimize([rounded], 0)
        Adam().optimize([plain], 0)
    assert torch.equal(rounded.w, plain.w)
    assert all(map(torch.equal, rounded.states, plain.states))
