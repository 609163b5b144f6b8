"""Schedule-Free around Adam, gradient descent and rules of one's own, against its equations in numpy's float64."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from constructors import RULES, described
from rule_cases import PlainLayer
from state_tensors import tensors_of
from torch import nn

from neon.optimizers import (
    Adam,
    AdamW,
    GradientDescentMomentum,
    Lion,
    MultiOptimizer,
    Optimizer,
    RMSProp,
    ScheduleFree,
)
from neon.optimizers.functions import maximum, mean, sqrt, where
from neon.optimizers.schedule_free import averaging

pytestmark = pytest.mark.usefixtures("one_thread")

Array = npt.NDArray[np.float64]
STEPS = 20
# In the first step, and later, nothing moves; then the rate falls.
RATES = [0.0, 0.1, 0.3, 0.0, *(0.2 / t for t in range(1, STEPS - 3))]


class ByHand:
    """x_{t+1} = (1−c)·x_t + c·z_{t+1} and y = β·x + (1−β)·z as they are published, all three kept."""

    def __init__(
        self, start: Array, beta: float, step: Callable[..., Array], warmup: int, r: float, power: float
    ) -> None:
        self.x, self.z, self.beta, self.step = start.copy(), start.copy(), beta, step
        self.warmup, self.r, self.power = warmup, r, power
        self.t, self.largest, self.total = 0, 0.0, 0.0
        self.kept: dict[str, Array] = {}

    @property
    def y(self) -> Array:
        return self.beta * self.x + (1 - self.beta) * self.z

    def update(self, g: Array, lr: float) -> None:
        self.t += 1
        rate = lr * (self.t / self.warmup if self.t <= self.warmup else 1.0)
        self.largest = max(self.largest, rate)
        weight = self.t**self.r * self.largest**self.power
        self.total += weight
        c = 0.0 if self.total == 0 else weight / self.total
        self.z = self.step(self, g, rate)
        self.x = (1 - c) * self.x + c * self.z


def adam_step(beta2: float, eps: float, decay: float) -> Callable[..., Array]:
    def step(own: ByHand, g: Array, rate: float) -> Array:
        v = own.kept["v"] = beta2 * own.kept.get("v", np.zeros_like(g)) + (1 - beta2) * g**2
        return own.z - rate * (g / (np.sqrt(v / (1 - beta2**own.t)) + eps) + decay * own.y)

    return step


def lion_step(beta1: float, beta2: float, decay: float) -> Callable[..., Array]:
    def step(own: ByHand, g: Array, rate: float) -> Array:
        m = own.kept.get("m", np.zeros_like(g))
        own.kept["m"] = beta2 * m + (1 - beta2) * g
        return own.z - rate * np.sign(beta1 * m + (1 - beta1) * (g + decay * own.y))

    return step


class Bounded(Optimizer):
    """A rule of one's own: a step of at most 1, from a mean of gradients."""

    @staticmethod
    def rule(w, g, mean=0.5, *, lr=0.1, share=0.25):  # type: ignore[no-untyped-def]
        mean = mean + share * (g - mean)
        return w - lr * mean / (1 + abs(mean)), mean


def bounded_step(own: ByHand, g: Array, rate: float) -> Array:
    mean = own.kept["mean"] = own.kept.get("mean", np.full_like(g, 0.5)) * 0.75 + 0.25 * g
    return own.z - rate * mean / (1 + np.abs(mean))


Made = tuple[Optimizer, float, Callable[..., Array]]
INNER: dict[str, Made] = {
    "adamw": (AdamW(beta_1=0.8, beta_2=0.9, epsilon=1e-3, wdecay=0.2), 0.8, adam_step(0.9, 1e-3, 0.2)),
    "adam": (Adam(beta_1=0.8, beta_2=0.9, epsilon=1e-3), 0.8, adam_step(0.9, 1e-3, 0.0)),
    "descent": (GradientDescentMomentum(0.1, 0.7), 0.7, lambda own, g, rate: own.z - rate * g),
    "decayed descent": (
        GradientDescentMomentum(0.1, 0.7, wdecay=0.2), 0.7, lambda own, g, rate: own.z - rate * (g + 0.2 * own.y),
    ),
    "a rule of one's own": (Bounded(), 0.9, bounded_step),
}  # fmt: skip
NUMBERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "warmed up": {"warmup_steps": 6},
    "later ones count": {"r": 1.5, "weight_lr_power": 1.0},
    "all alike": {"weight_lr_power": 0.0},
    "everything": {"warmup_steps": 9, "r": 0.5, "weight_lr_power": 3.0},
}


def gradient(step: int, shape: tuple[int, ...], place: int = 0) -> Array:
    return np.random.default_rng(1000 * step + place).standard_normal(shape)


def by_hand(made: Made, start: Array, numbers: dict[str, Any]) -> ByHand:
    return ByHand(
        start, *made[1:], numbers.get("warmup_steps", 0), numbers.get("r", 0.0), numbers.get("weight_lr_power", 2.0)
    )


@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("inner", INNER)
def test_twenty_steps_are_those_of_the_published_equations(inner: str, numbers: str) -> None:
    start = gradient(0, (6, 5), 1)
    param = nn.Parameter(torch.tensor(start))
    optimizer = ScheduleFree(INNER[inner][0], **NUMBERS[numbers]).attach([param])
    expected = by_hand(INNER[inner], start, NUMBERS[numbers])
    for step, rate in enumerate(RATES, 1):
        optimizer.param_groups[0]["lr"] = rate
        g = gradient(step, start.shape)
        param.grad = torch.tensor(g)
        optimizer.step()
        expected.update(g, rate)
        np.testing.assert_allclose(param.detach().numpy(), expected.y, rtol=0, atol=1e-14)
        with optimizer.evaluating():
            np.testing.assert_allclose(param.detach().numpy(), expected.x, rtol=0, atol=2e-14)
    group, state = optimizer.param_groups[0], optimizer.state[param]
    assert (group["k"], group["lr_max"]) == (STEPS, expected.largest)
    assert group["weight_sum"] == pytest.approx(expected.total, rel=1e-15)
    assert "exp_avg" not in state
    np.testing.assert_allclose(state["z"].numpy(), expected.z, rtol=0, atol=1e-14)


def test_a_rule_of_ones_own_inside_with_a_clip_by_norm() -> None:
    starts = [gradient(0, shape, 1) for shape in ((6, 5), (7,))]
    params = [nn.Parameter(torch.tensor(start)) for start in starts]
    optimizer = ScheduleFree(Bounded(gradient_clip_norm=2.0), momentum=0.6).attach(params)
    expected = [by_hand((Bounded(), 0.6, bounded_step), start, {}) for start in starts]
    for step in range(1, STEPS):
        gs = [gradient(step, start.shape, place) for place, start in enumerate(starts)]
        factor = min(1.0, 2.0 / math.sqrt(sum((g**2).sum() for g in gs)))
        for param, g, own in zip(params, gs, expected, strict=True):
            param.grad = torch.tensor(g)
            own.update(factor * g, 0.1)
        assert factor < 0.7
        optimizer.step()
    for param, own in zip(params, expected, strict=True):
        np.testing.assert_allclose(param.detach().numpy(), own.y, rtol=0, atol=1e-14)


def test_around_lion_the_decay_is_that_of_lion() -> None:
    """A decay that a rule adds to the gradient acts at y, one that it has by itself at z."""
    start = gradient(0, (6, 5), 1)
    param = nn.Parameter(torch.tensor(start))
    optimizer = ScheduleFree(Lion(learning_rate=0.05, beta_1=0.7, beta_2=0.8)).attach([param])
    expected = by_hand((Lion(), 0.9, lion_step(0.7, 0.8, 0.0)), start, {})
    for step in range(1, STEPS):
        g = gradient(step, start.shape)
        param.grad = torch.tensor(g)
        optimizer.step()
        expected.update(g, 0.05)
    np.testing.assert_allclose(param.detach().numpy(), expected.y, rtol=0, atol=1e-14)


def test_weights_of_the_average_by_hand() -> None:
    assert averaging(0.0, 0.0, 0.0, lr=0.0, warmup_steps=0, r=0.0, weight_lr_power=2.0) == (0.0, 0.0, (1.0, 0.0, 0.0))
    assert averaging(0.0, 0.0, 0.0, lr=0.5, warmup_steps=2, r=0.0, weight_lr_power=2.0) == (
        0.25,
        1.0,
        (1.0, 0.25, 0.0625),
    )
    assert averaging(3.0, 0.5, 0.25, lr=0.1, warmup_steps=0, r=1.0, weight_lr_power=2.0) == (0.1, 0.8, (4.0, 0.5, 1.25))


# -- the optimizer as a whole ----------------------------------------------------------------------


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(70, 80), nn.Tanh(), nn.Linear(80, 3)).to(dtype)


def train(model: nn.Module, optimizer: Any, *steps: int) -> None:
    for step in steps:
        for place, param in enumerate(model.parameters()):
            param.grad = torch.tensor(gradient(step, tuple(param.shape), place)).to(param)
        optimizer.step()


def bits(model: nn.Module, optimizer: Any) -> list[Any]:
    tensors = [t for p in model.parameters() for t in (p, *tensors_of(optimizer.state[p]))]
    numbers = [
        group[name] for group in optimizer.param_groups for name in ("k", "lr_max", "weight_sum") if name in group
    ]
    return [*(t.detach().reshape(-1).view(torch.uint8).tolist() for t in tensors), numbers]


class Cautious(Optimizer):
    """Momentum where its sign is that of the gradient, by the share of such elements (Liang et al. 2024)."""

    @staticmethod
    def rule(w, g, m, v, *, lr=0.02, beta=0.9):  # type: ignore[no-untyped-def]
        m, v = beta * m + (1 - beta) * g, beta * v + (1 - beta) * g * g
        mask = where(m * g > 0, 1.0, 0.0)
        return w - lr * m * mask / (maximum(mean(mask), 1e-3) * (sqrt(v) + 1e-8)), m, v


def kind(
    description: Callable[[], Optimizer], dtype: torch.dtype = torch.float32
) -> Callable[[], tuple[nn.Module, Any]]:
    def make() -> tuple[nn.Module, Any]:
        model = net(dtype)
        return model, description().attach(model)

    return make


KINDS = {
    "adamw": kind(lambda: ScheduleFree(AdamW(), warmup_steps=5)),
    "int8": kind(lambda: ScheduleFree(AdamW(state_dtype="int8"))),
    "split": kind(lambda: ScheduleFree(AdamW(master="split")), torch.bfloat16),
    "own": kind(lambda: ScheduleFree(Bounded(), momentum=0.7)),
    "cautious": kind(lambda: ScheduleFree(Cautious(state_dtype="int8", gradient_clip_norm=0.5))),
    "mapping": kind(lambda: MultiOptimizer({"default": RMSProp(), "2": ScheduleFree(AdamW(learning_rate=0.01))})),
}


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("name", KINDS)
def test_a_checkpoint_of_any_moment_resumes_to_the_bit(name: str, mode: str) -> None:
    model, optimizer = KINDS[name]()
    train(model, optimizer, 1, 2, 3)
    before = bits(model, optimizer)
    getattr(optimizer, mode)()
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    optimizer.train()
    assert bits(model, optimizer) == before
    weights, states = torch.load(file, weights_only=True)
    fresh, resumed = KINDS[name]()
    fresh.load_state_dict(weights)
    resumed.load_state_dict(states)
    assert bits(fresh, resumed) == before
    for each in ((model, optimizer), (fresh, resumed)):
        train(*each, 4, 5)
    assert bits(fresh, resumed) == bits(model, optimizer)


def test_in_a_mapping_the_others_stay_as_they_are() -> None:
    model, optimizer = KINDS["mapping"]()
    alone, plain = net(), None
    plain = RMSProp().attach(alone[0])
    train(model, optimizer, 1, 2)
    for step in (1, 2):
        for place, param in enumerate(alone[0].parameters()):
            param.grad = torch.tensor(gradient(step, tuple(param.shape), place)).to(param)
        plain.step()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.eval()
    changed = [not torch.equal(p, w) for p, w in zip(model.parameters(), before, strict=True)]
    assert changed == [False, False, True, True]
    assert all(map(torch.equal, model[0].parameters(), alone[0].parameters()))
    assert ["k" in group for group in optimizer.param_groups] == [False, True]


def test_z_is_a_weight_and_the_mean_of_squares_is_not() -> None:
    model, optimizer = KINDS["int8"]()
    train(model, optimizer, 1)
    state = optimizer.state[model[0].weight]
    assert (state["z"].dtype, state["exp_avg_sq"].dtype) == (torch.float32, torch.uint8)
    named = ScheduleFree(AdamW(state_dtype={"z": "bfloat16"})).attach(net())
    train(net(), named)
    with pytest.raises(ValueError, match="8 bits are too few of a weight"):
        ScheduleFree(AdamW(state_dtype={"z": "int8"})).attach(net())


def test_split_weights_follow_those_of_float32() -> None:
    """Step for step, what bfloat16 weights with their low bits compute is what float32 weights do."""
    low, high = net(torch.bfloat16), net(torch.bfloat16).float()
    optimizers = [ScheduleFree(AdamW(master="split")).attach(low), ScheduleFree(AdamW()).attach(high)]
    for step in range(5):
        for place, (a, b) in enumerate(zip(low.parameters(), high.parameters(), strict=True)):
            a.grad = torch.tensor(gradient(step, tuple(a.shape), place)).bfloat16()
            b.grad = a.grad.float()
        for optimizer in optimizers:
            optimizer.step()
    for a, b in zip(low.parameters(), high.parameters(), strict=True):
        assert torch.equal(optimizers[0].state[a]["z"], optimizers[1].state[b]["z"])
    for optimizer in optimizers:
        optimizer.eval()
    for a, b in zip(low.parameters(), high.parameters(), strict=True):
        assert torch.equal(a.float(), ((b.detach().view(torch.int32) + 0x8000) >> 16 << 16).view(torch.float32))


@pytest.mark.parametrize("wrong", [math.inf, math.nan])
def test_a_step_that_is_skipped_changes_nothing(wrong: float) -> None:
    model = net()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for optimizer in (ScheduleFree(AdamW()).attach(model), ScheduleFree(AdamW()).attach(model, skip_nonfinite=True)):
        train(model, optimizer, 1, 2)
        before = bits(model, optimizer)
        scaler.scale(torch.ones(()))
        for param in model.parameters():
            param.grad = torch.full_like(param, 8.0)
        model[2].bias.grad = torch.full_like(model[2].bias, wrong)
        if optimizer.skip_nonfinite:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        assert bits(model, optimizer) == before


def test_layer_lists_take_the_same_steps() -> None:
    model, other = net(), net()
    layer, optimizer, attached = (
        PlainLayer([*model.parameters()]),
        ScheduleFree(AdamW()),
        ScheduleFree(AdamW()).attach(other),
    )
    for step in range(3):
        train(other, attached, step)
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            a.grad = b.grad
        optimizer.optimize([layer], 0)
    assert all(map(torch.equal, model.parameters(), other.parameters()))
    attached.eval()
    with optimizer.evaluating([layer]):
        assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_groups_count_and_weigh_for_themselves() -> None:
    a, b = (nn.Parameter(torch.ones(3)) for _ in range(2))
    optimizer = ScheduleFree(AdamW()).attach([{"params": [a], "lr": 0.5}, {"params": [b], "lr": 0.25}])
    for param in (a, b):
        param.grad = torch.ones(3)
    optimizer.step()
    assert [(g["k"], g["lr_max"], g["weight_sum"]) for g in optimizer.param_groups] == [
        (1, 0.5, 0.25),
        (1, 0.25, 0.0625),
    ]
    again = copy.deepcopy(optimizer)
    assert again.param_groups[0]["lr_max"] == 0.5


@pytest.mark.parametrize("name", [name for name in RULES if name != "ScheduleFree"])
def test_around_every_exported_rule(name: str) -> None:
    """A step from where z and the weight are one is the rule's own; then they part."""
    inner = described(name)
    if name == "Prodigy":
        with pytest.raises(TypeError, match="schedule_free and prodigy, which it is around, both have k"):
            ScheduleFree(inner)
        return
    if name in ("LARS", "Muon", "NorMuon", "Signum"):  # whose momentum is a number of groups, as ScheduleFree's is
        with pytest.raises(TypeError, match="both have the number momentum"):
            ScheduleFree(inner)
        return
    if name == "Lookahead":
        with pytest.raises(TypeError, match="ScheduleFree and Lookahead each say what a weight is at evaluation"):
            ScheduleFree(inner).attach(net())
        return
    model, alone = net(), net()
    optimizer, plain = ScheduleFree(described(name)).attach(model), inner.attach(alone)
    train(model, optimizer, 1)
    train(alone, plain, 1)
    for a, b in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=6e-8)
    train(model, optimizer, 2, 3)
    before = bits(model, optimizer)
    with optimizer.evaluating():
        assert not any(torch.equal(p, optimizer.state[p]["z"]) for p in model.parameters())
    assert bits(model, optimizer) == before


# -- what is refused -------------------------------------------------------------------------------

REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "a momentum beside β₁": (lambda: ScheduleFree(AdamW(), momentum=0.5), r"around AdamW does not read momentum"),
    "β₁ of 0": (lambda: ScheduleFree(AdamW(beta_1=0.0)), r"betas\[0\] must be in the interval \(0, 1\)\. .*0\.0"),
    "no momentum": (
        lambda: ScheduleFree(GradientDescentMomentum(0.1, 0.0)),
        r"momentum must be in the interval \(0, 1\)",
    ),
    "nesterov": (lambda: ScheduleFree(GradientDescentMomentum(0.1, 0.9, nesterov=True)), "has no Nesterov's form"),
    "an average": (lambda: ScheduleFree(AdamW(weight_average=0.9)).attach(net()), "leave weight_average out"),
    "itself": (lambda: ScheduleFree(ScheduleFree(AdamW())), "both have lr_max|each say what a weight is|both have"),
    "a part of a step": (lambda: ScheduleFree(AdamW(), warmup_steps=1.5), "warmup_steps must be a whole number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_had_is_refused_by_name(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_sixteen_bits_need_the_others_beside_them() -> None:
    model = net(torch.bfloat16)
    optimizer = ScheduleFree(AdamW()).attach(model)
    with pytest.raises(TypeError, match=r"Parameter '0\.weight' is torch\.bfloat16.*Use master='split'"):
        train(model, optimizer, 1)


def test_it_prints_as_it_is_written() -> None:
    assert repr(ScheduleFree(AdamW(learning_rate=0.5, gradient_clip_norm=1.0), r=1.0)) == (
        "ScheduleFree(AdamW(weight_decay=0.01, lr=0.5, betas=(0.9, 0.999), eps=1e-08, gradient_clip_norm=1.0), "
        "warmup_steps=0, r=1.0, weight_lr_power=2.0)"
    )
