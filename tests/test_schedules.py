"""Schedules: every form, against numbers worked out by hand; a schedule remembers nothing."""

# pyright: reportArgumentType=false
# numpy's whole numbers are none of Python's to a type checker

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch

from neon.assignment.param_list import param_entry
from neon.optimizers import (
    Adam,
    ExpSchedule,
    GradientDescentMomentum,
    PolySchedule,
    PowerSchedule,
    Schedule,
    ShiftSchedule,
    StepSchedule,
    WarmupCosine,
    WarmupStableDecay,
)

COSINE_45 = 0.5 * (1 + math.sqrt(0.5))  # ½(1 + cos 45°)
COSINE_135 = 0.5 * (1 - math.sqrt(0.5))

# name: (schedule, initial rate, {epoch: rate expected there})
TABLE = {
    "constant": (Schedule(), 0.3, {0: 0.3, 1: 0.3, 1000: 0.3}),
    "listed epochs": (
        Schedule(step_config=[2, 6], change=0.5),
        1.0,
        {0: 1.0, 1: 1.0, 2: 0.5, 3: 0.5, 5: 0.5, 6: 0.25, 7: 0.25, 100: 0.25},
    ),
    "listed epochs as a tuple": (Schedule((1, 2, 3), 0.1), 1.0, {0: 1, 1: 0.1, 2: 0.01, 9: 0.001}),
    "epoch zero listed": (Schedule(step_config=[0, 2], change=0.5), 1.0, {0: 0.5, 1: 0.5, 2: 0.25}),
    "every two epochs": (
        Schedule(step_config=2, change=0.5),
        0.8,
        {0: 0.8, 1: 0.8, 2: 0.4, 3: 0.4, 4: 0.2, 5: 0.2, 6: 0.1, 20: 0.8 / 1024},
    ),
    "every epoch, growing": (Schedule(step_config=1, change=2.0), 0.5, {0: 0.5, 1: 1.0, 3: 4.0}),
    "set to": (
        Schedule(step_config=[2, 6], change=[0.6, 0.4]),
        1.0,
        {0: 1.0, 1: 1.0, 2: 0.6, 3: 0.6, 5: 0.6, 6: 0.4, 50: 0.4},
    ),
    # "set" is not "multiply": the initial rate does not matter once an epoch is reached
    "set to, another start": (
        Schedule(step_config=[2, 6], change=[0.6, 0.4]),
        7.0,
        {0: 7.0, 1: 7.0, 2: 0.6, 6: 0.4},
    ),
    "StepSchedule": (
        StepSchedule(step_config=[1, 4], change=[0.25, 3.0]),
        2.0,
        {0: 2.0, 1: 0.25, 3: 0.25, 4: 3.0, 40: 3.0},
    ),
    "PowerSchedule": (
        PowerSchedule(step_config=3, change=0.5),
        0.4,
        {0: 0.4, 2: 0.4, 3: 0.2, 5: 0.2, 6: 0.1, 9: 0.05},
    ),
    "ExpSchedule": (ExpSchedule(0.5), 0.6, {0: 0.6, 1: 0.4, 2: 0.3, 4: 0.2, 10: 0.1}),
    "ExpSchedule, no decay": (ExpSchedule(0.0), 0.6, {0: 0.6, 9: 0.6}),
    "PolySchedule, linear": (PolySchedule(4, 1), 0.8, {0: 0.8, 1: 0.6, 2: 0.4, 3: 0.2, 4: 0, 9: 0}),
    "PolySchedule, square": (
        PolySchedule(total_epochs=10, power=2),
        1.0,
        {0: 1.0, 1: 0.81, 5: 0.25, 9: 0.01, 10: 0.0, 11: 0.0},
    ),
    "PolySchedule, root": (PolySchedule(4, 0.5), 3.0, {0: 3.0, 3: 1.5, 4: 0.0, 5: 0.0}),
    "ShiftSchedule": (ShiftSchedule(2), 0.8, {0: 0.8, 1: 0.8, 2: 0.4, 3: 0.4, 4: 0.2, 7: 0.1}),
    "ShiftSchedule, two bits": (
        ShiftSchedule(interval=3, shift_size=2),
        1.0,
        {0: 1.0, 2: 1.0, 3: 0.25, 6: 0.0625, 8: 0.0625},
    ),
    "WarmupCosine": (
        WarmupCosine(warmup=4, total=12),
        0.8,
        # (t + 1)/4 of the rate, then the cosine, then nothing
        dict(enumerate([0.2, 0.4, 0.6, 0.8, 0.8]))
        | {6: 0.8 * COSINE_45, 8: 0.4, 10: 0.8 * COSINE_135, 12: 0.0, 13: 0.0, 1000: 0.0},
    ),
    "WarmupCosine with a floor": (
        WarmupCosine(warmup=2, total=6, floor=0.1),
        1.0,
        {0: 0.5, 1: 1.0, 2: 1.0, 3: 0.1 + 0.9 * COSINE_45, 4: 0.55, 6: 0.1, 60: 0.1},
    ),
    "WarmupCosine without warm-up": (
        WarmupCosine(warmup=0, total=2),
        1.0,
        {0: 1.0, 1: 0.5, 2: 0.0},
    ),
    "no epoch that is reached": (Schedule(list(range(10, 3)), 0.97), 0.1, {0: 0.1, 5: 0.1, 99: 0.1}),
    "no epoch to set a rate from": (Schedule([], []), 0.1, {0: 0.1, 99: 0.1}),
    "WarmupCosine in steps": (
        WarmupCosine(warmup=2, total=6, floor=1.0, unit="steps"),
        1.0,
        {0: 0.5, 1: 1.0, 4: 1.0, 6: 1.0},
    ),
    "WarmupStableDecay": (
        WarmupStableDecay(warmup=2, stable=3, decay=4),
        0.8,
        dict(enumerate([0.4, 0.8, 0.8, 0.8, 0.8, 0.8, 0.6, 0.4, 0.2, 0.0, 0.0])) | {99: 0.0},
    ),
    "WarmupStableDecay with a floor": (
        WarmupStableDecay(warmup=1, stable=1, decay=2, floor=0.5),
        2.0,
        {0: 2.0, 1: 2.0, 2: 2.0, 3: 1.5, 4: 1.0, 5: 1.0, 500: 1.0},
    ),
    "WarmupStableDecay, decay alone": (
        WarmupStableDecay(warmup=0, stable=0, decay=2, unit="steps"),
        1.0,
        {0: 1.0, 1: 0.5, 2: 0.0},
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_rates_by_hand(name: str) -> None:
    schedule, rate, expected = TABLE[name]
    for epoch, value in expected.items():
        got = schedule.get_learning_rate(rate, epoch)
        assert got == pytest.approx(value, rel=1e-14, abs=1e-16), f"at {epoch}"


@pytest.mark.parametrize("name", TABLE)
def test_a_schedule_is_a_function_of_the_epoch_alone(name: str) -> None:
    schedule, rate, expected = TABLE[name]
    epochs = sorted(expected)
    in_order = {epoch: schedule.get_learning_rate(rate, epoch) for epoch in epochs}
    shuffled = epochs * 3
    random.Random(0).shuffle(shuffled)
    for epoch in shuffled:
        schedule.get_learning_rate(5 * rate, epoch)  # another optimizer asks in between
        assert schedule.get_learning_rate(rate, epoch) == in_order[epoch], f"at {epoch}"


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("of", [float, np.float64, np.float32, np.array, torch.tensor])
@pytest.mark.parametrize("at", [int, float, np.int64, np.float32, np.array])
def test_rates_are_plain_floats(name: str, of: Any, at: Any) -> None:
    schedule, rate, expected = TABLE[name]
    for epoch in expected:
        found = schedule.get_learning_rate(of(rate), at(epoch))
        assert type(found) is float
        assert found == schedule.get_learning_rate(float(of(rate)), epoch)


@pytest.mark.parametrize("schedule", [Schedule([], 0.97), Schedule([], []), StepSchedule([], [])], ids=repr)
def test_a_list_without_epochs_leaves_the_rate_as_it_is(schedule: Schedule) -> None:
    """Programs write list(range(10, epochs)), which a shorter run empties."""
    assert [schedule.get_learning_rate(0.1, epoch) for epoch in (0, 5, 100)] == [0.1] * 3
    attached = Adam(schedule=Schedule([], 0.97)).attach([torch.ones(1, requires_grad=True)])
    attached.param_groups[0]["lr"] = 0.5
    attached.set_epoch(3)
    assert attached.param_groups[0]["lr"] == 0.5


def test_arguments_may_be_numpys() -> None:
    assert Schedule(np.array([2, 6]), np.float64(0.5)) == Schedule([2, 6], 0.5)
    assert StepSchedule(np.array([2, 6]), np.array([0.6, 0.4])) == StepSchedule([2, 6], [0.6, 0.4])
    assert WarmupCosine(np.int64(2), np.array(6)) == WarmupCosine(2, 6)
    assert repr(PowerSchedule(np.int64(2), np.float32(0.5))) == "PowerSchedule(step_config=2, change=0.5)"


def test_lists_are_copied() -> None:
    epochs, rates = [2, 6], [0.6, 0.4]
    schedule = Schedule(epochs, rates)
    epochs[0], rates[0] = 0, 9.0
    assert schedule.get_learning_rate(1.0, 1) == 1.0
    assert schedule.get_learning_rate(1.0, 2) == 0.6


# the class, its arguments, the error, and a word that the message must hold: the argument it is about
BAD: dict[str, tuple[Any, tuple[Any, ...], Any, str]] = {
    "fewer rates than epochs": (Schedule, ([2, 6], [0.5]), ValueError, "change"),
    "rates for no list": (Schedule, (2, [0.5, 0.1]), (TypeError, ValueError), "change"),
    "rates without epochs": (Schedule, (None, [0.5]), (TypeError, ValueError), "step_config"),
    "a factor without epochs": (Schedule, (None, 0.5), ValueError, "step_config"),
    "interval of zero": (Schedule, (0, 0.5), ValueError, "step_config"),
    "negative interval": (Schedule, (-2, 0.5), ValueError, "step_config"),
    "epochs out of order": (Schedule, ([6, 2], 0.5), ValueError, "step_config"),
    "negative epoch": (Schedule, ([-1, 2], 0.5), ValueError, "step_config"),
    "fractional epoch": (Schedule, ([1.5], 0.5), (TypeError, ValueError), "step_config"),
    "epochs as text": (Schedule, ("2", 0.5), TypeError, "step_config"),
    "negative factor": (Schedule, (2, -0.5), ValueError, "change"),
    "NaN factor": (Schedule, (2, math.nan), ValueError, "change"),
    "negative rate": (Schedule, ([2], [-1.0]), ValueError, "change"),
    "factor as text": (Schedule, (2, "half"), TypeError, "change"),
    **{
        f"StepSchedule of {given}": (StepSchedule, given, TypeError, words)
        for given in ((2, 0.5), ([2], 0.5), (2, [0.5]), (2, np.float64(0.5)))
        for words in [r"StepSchedule\(\[2\], \[0\.5\]\) sets .* PowerSchedule\(2, 0\.5\) multiplies"]
    },
    "StepSchedule lengths": (StepSchedule, ([2, 6], [0.5]), ValueError, "change"),
    "PowerSchedule interval": (PowerSchedule, (0, 0.5), ValueError, "step_config"),
    "ExpSchedule decay": (ExpSchedule, (-0.1,), ValueError, "decay"),
    "ExpSchedule NaN": (ExpSchedule, (math.nan,), ValueError, "decay"),
    "PolySchedule epochs": (PolySchedule, (0, 1), ValueError, "total_epochs"),
    "PolySchedule power": (PolySchedule, (5, -1), ValueError, "power"),
    "ShiftSchedule interval": (ShiftSchedule, (0,), ValueError, "interval"),
    "ShiftSchedule interval type": (ShiftSchedule, ("2",), TypeError, "interval"),
    "WarmupCosine warm-up": (WarmupCosine, (-1, 10), ValueError, "warmup"),
    "WarmupCosine total": (WarmupCosine, (10, 5), ValueError, "total"),
    "WarmupCosine floor": (WarmupCosine, (1, 10, 1.5), ValueError, "floor"),
    "WarmupCosine unit": (WarmupCosine, (1, 10, 0.0, "weeks"), ValueError, "unit"),
    "stable": (WarmupStableDecay, (1, -1, 5), ValueError, "stable"),
    "decay": (WarmupStableDecay, (1, 1, -5), ValueError, "decay"),
    "floor": (WarmupStableDecay, (1, 1, 5, -0.5), ValueError, "floor"),
    "unit": (WarmupStableDecay, (1, 1, 5, 0.0, "hours"), ValueError, "unit"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_named(name: str) -> None:
    schedule, arguments, error, word = BAD[name]
    with pytest.raises(error, match=word):
        schedule(*arguments)


def test_optimize_follows_the_epoch_it_is_given() -> None:
    opt = GradientDescentMomentum(1.0, 0.0, schedule=Schedule([2, 6], [0.5, 0.25]))
    for epoch, rate in [(0, 1.0), (6, 0.25), (2, 0.5), (1, 1.0), (9, 0.25)]:
        p = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
        p.grad = torch.ones_like(p)
        opt.optimize([_Layer(p)], epoch)
        assert p.tolist() == [-rate] * 3


def test_attached_follows_set_epoch_and_shows_the_rate() -> None:
    p = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    opt = GradientDescentMomentum(0.8, 0.0, schedule=Schedule(2, 0.5)).attach([p])
    rates = []
    for epoch in range(5):
        opt.set_epoch(epoch)
        rates.append(opt.param_groups[0]["lr"])
        before = p.item()
        p.grad = torch.ones_like(p)
        opt.step()
        assert before - p.item() == pytest.approx(rates[-1], rel=1e-14)
    assert rates == pytest.approx([0.8, 0.8, 0.4, 0.4, 0.2], rel=1e-14)


@pytest.mark.parametrize("how", ["attach", "optimize"])
def test_a_schedule_in_steps_counts_updates(how: str) -> None:
    schedule = WarmupStableDecay(warmup=2, stable=1, decay=2, unit="steps")
    p = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))
    opt = GradientDescentMomentum(1.0, 0.0, schedule=schedule)
    attached = opt.attach([p]) if how == "attach" else None
    layers, moved = [_Layer(p)], []
    for _ in range(6):
        before = p.item()
        p.grad = torch.ones_like(p)
        if attached is not None:
            attached.step()
        else:
            opt.optimize(layers, epoch=0)
        moved.append(before - p.item())
    assert moved == pytest.approx([0.5, 1.0, 1.0, 1.0, 0.5, 0.0], rel=1e-12)


class FallsBelow(Schedule):
    """The rate is halved and, where it began at 1, negative from 2 on."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def get_learning_rate(self, learning_rate: float, now: int) -> float:
        return learning_rate - now if learning_rate == 1 else learning_rate / 2**now


@pytest.mark.parametrize(("unit", "in_backward"), [("epochs", False), ("steps", False), ("steps", True)])
def test_where_one_rate_is_refused_those_of_all_groups_stay(unit: str, in_backward: bool) -> None:
    params = [torch.nn.Parameter(torch.zeros(3)) for _ in range(2)]
    rule = GradientDescentMomentum(1.0, 0.0, schedule=FallsBelow(unit))
    attached = rule.attach([{"params": [p], "lr": lr} for p, lr in zip(params, (4.0, 1.0), strict=True)],
                           in_backward=in_backward)  # fmt: skip
    refused = pytest.raises(ValueError, match=r"^lr must be a finite number of at least 0")

    def step() -> None:
        sum(p.sum() for p in params).backward()  # type: ignore[union-attr]
        attached.step()

    def rates() -> list[float]:
        return [group["lr"] for group in attached.param_groups]

    if unit == "epochs":
        attached.set_epoch(1)
        with refused:
            attached.set_epoch(2)
        assert [group["epoch"] for group in attached.param_groups] == [1, 1]
    else:
        for _ in range(1 if in_backward else 2):  # in the backward pass the rate of the next step is set at the end
            step()
        before = [p.tolist() for p in params]
        with refused:
            step()
        assert in_backward or before == [p.tolist() for p in params]
    assert rates() == [2.0, 0.0]


RISING = WarmupStableDecay(2, 1, 2, unit="steps")  # 0.5, 1, 1, 1, 0.5, 0


def test_steps_are_counted_by_the_layers_and_not_by_the_description() -> None:
    described, again = (GradientDescentMomentum(1.0, 0.0, schedule=RISING) for _ in range(2))
    one, other = (_Layer(torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))) for _ in range(2))
    moved: dict[str, list[float]] = {"one": [], "other": []}

    def step(opt: Any, name: str, layer: _Layer) -> None:
        before = layer.parameter.item()
        layer.parameter.grad = torch.ones_like(layer.parameter)
        opt.optimize([layer], epoch=0)
        moved[name].append(before - layer.parameter.item())

    for _ in range(3):
        step(described, "one", one)
    for _ in range(2):  # another model begins anew, and a new description goes on
        step(described, "other", other)
        step(again, "one", one)
    assert moved == {"one": [0.5, 1.0, 1.0, 1.0, 0.5], "other": [0.5, 1.0]}
    assert (described.updates, again.updates, Adam().updates) == (2, 5, 0)  # of the layers that each updated last


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_two_descriptions_that_take_turns_count_together(momentum: float) -> None:
    """Of all layers or of some; what either says of its updates has those of the other."""
    turns = [GradientDescentMomentum(1.0, momentum, schedule=RISING) for _ in range(2)]
    alone = GradientDescentMomentum(1.0, momentum, schedule=RISING)
    layers, beside, expected = (
        [_Layer(torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))) for _ in range(2)] for _ in range(3)
    )
    for layer in (*layers, *beside, *expected):
        layer.parameter.grad = torch.ones_like(layer.parameter)
    for number in range(7):
        turns[number % 2].optimize(layers if number < 4 else layers[:1] + beside[1:], 0)
        alone.optimize(expected if number < 4 else expected[:1], 0)
    assert [layer.parameter.item() for layer in layers] == [layer.parameter.item() for layer in expected]
    assert [described.updates for described in turns] == [7, 7]


def test_steps_are_counted_with_new_and_resting_layers_beside() -> None:
    opt = GradientDescentMomentum(1.0, 0.0, schedule=RISING)
    old, new = (_Layer(torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))) for _ in range(2))
    moved = []
    for layers in ([old], [old], [old, new], [old, new], [old, new]):
        for layer in layers:
            layer.parameter.grad = torch.ones_like(layer.parameter)
        before = new.parameter.item()
        opt.optimize(layers, epoch=0)
        moved.append(before - new.parameter.item())
    assert moved == [0.0, 0.0, 1.0, 1.0, 0.5]


def test_every_rule_takes_a_schedule() -> None:
    p = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    p.grad = torch.ones_like(p)
    Adam(learning_rate=0.5, schedule=Schedule([3], [0.0])).optimize([_Layer(p)], 3)
    assert p.tolist() == [0.0, 0.0]


class _Layer:
    """One parameter as a layer; its states stay with it."""

    def __init__(self, parameter: torch.nn.Parameter) -> None:
        self.parameter = parameter
        self.states: list[torch.Tensor] = []

    def get_params(self) -> tuple[tuple[torch.Tensor, torch.Tensor | None], list[torch.Tensor]]:
        (param, grad), _ = param_entry(self.parameter)
        return (param, grad), self.states
