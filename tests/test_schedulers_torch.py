"""Torch's schedulers drive an attached optimizer as they drive torch's own: rates, betas and parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler, swa_utils
from torch.optim.lr_scheduler import LRScheduler

import neon.optimizers as neon_optim
import neon.torch
from neon.optimizers import MultiOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 12
BOUND = 1e-14  # of parameters between 1 and 6; seen: 3.3e-15

Optimizer = torch.optim.Optimizer
Make = Callable[[Any], Any]

# Beside the name of a class, what else is told of the case. Momentum and betas are cycled where there are any.
SCHEDULERS: dict[str, Make] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "LambdaLR, one each": lambda o: lr_scheduler.LambdaLR(o, [lambda t: 1 / (1 + t), lambda t: 0.8**t]),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda t: 0.9 if t % 2 else 1.05),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 3, 0.5),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 3, 7], 0.5),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, 0.25, 4),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o, 0.1, 0.9, 6),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 9, 2.0),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 5, 0.001),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2, 2),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 3), lr_scheduler.ExponentialLR(o, 0.9)], o
    ),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=4), lr_scheduler.CosineAnnealingLR(o, 8)], [4]
    ),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=1, cooldown=1),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.2, 3, mode="triangular2", cycle_momentum=cycled(o)),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.2, total_steps=STEPS + 1, cycle_momentum=cycled(o)),
    "OneCycleLR, three phases": lambda o: lr_scheduler.OneCycleLR(
        o, [0.2, 0.1], total_steps=STEPS + 1, three_phase=True, anneal_strategy="linear", cycle_momentum=cycled(o)
    ),
    "SWALR": lambda o: swa_utils.SWALR(o, 0.02, anneal_epochs=4),
}
ONE_EACH = {"LambdaLR, one each", "OneCycleLR, three phases"}  # they list a value for each of two groups

# name: (neon's, torch's). neon's velocity holds the rate, torch's buffer does not: without momentum they agree.
RULES: dict[str, tuple[Make, Make]] = {
    "Adam": (
        lambda lr: neon_optim.Adam(learning_rate=lr, wdecay=0.1),
        lambda groups: torch.optim.Adam(groups, weight_decay=0.1),
    ),
    "AdamW": (
        lambda lr: neon_optim.AdamW(learning_rate=lr, wdecay=0.1),
        lambda groups: torch.optim.AdamW(groups, weight_decay=0.1),
    ),
    "SGD": (lambda lr: neon_optim.GradientDescentMomentum(lr, 0.0), torch.optim.SGD),
}
RATES: dict[str, Make] = {"float": float, "tensor": lambda lr: torch.tensor(lr, dtype=torch.float64)}
TARGETS = ("one group", "groups", "MultiOptimizer")


def cycled(optimizer: Optimizer) -> bool:
    return "betas" in optimizer.defaults or optimizer.defaults.get("momentum", 0) > 0


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(4)
    return [nn.Parameter(torch.randn(n, generator=generator, dtype=torch.float64)) for n in (5, 3)]


def parameters_in_groups(*rates: float) -> list[dict[str, Any]]:
    return [{"params": [p], "lr": rate} for p, rate in zip(parameters(), rates, strict=True)]


def attached(rule: str, target: str, rate: Make) -> Optimizer:
    """neon's optimizer of two parameters, in one group or with a rate for each."""
    ours, first, second = RULES[rule][0], *parameters()
    if target == "one group":
        return ours(0.1).attach([{"params": [first, second], "lr": rate(0.1)}])
    groups: list[dict[str, Any]] = [{"params": [first], "lr": rate(0.1)}, {"params": [second], "lr": rate(0.05)}]
    if target == "groups":
        return ours(0.1).attach(groups)
    groups[1]["optimizer"] = "second"
    return MultiOptimizer({"default": ours(0.1), "second": ours(0.05)}).attach(groups)


def torchs(rule: str, target: str, rate: Make) -> Optimizer:
    """torch's optimizer of the same two parameters."""
    first, second = parameters()
    if target == "one group":
        return RULES[rule][1]([{"params": [first, second], "lr": rate(0.1)}])
    return RULES[rule][1]([{"params": [first], "lr": rate(0.1)}, {"params": [second], "lr": rate(0.05)}])


def params_of(optimizer: Optimizer) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def values(optimizer: Optimizer) -> list[Any]:
    """What schedulers write to."""
    keys = ("betas", "momentum", "initial_lr")
    return [(float(group["lr"]), *map(group.get, keys)) for group in optimizer.param_groups]


def train(optimizer: Optimizer, scheduler: Any, steps: range) -> list[Any]:
    """Steps of both; the values of the groups after each."""
    seen = []
    for step in steps:
        for number, p in enumerate(params_of(optimizer)):
            generator = torch.Generator().manual_seed(10 * step + number)
            p.grad = p.detach() + torch.randn(p.shape, generator=generator, dtype=p.dtype)
        optimizer.step()
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(float(step % 5 != 0))
        else:
            scheduler.step()
        seen.append(values(optimizer))
    return seen


def distance(a: Optimizer, b: Optimizer) -> float:
    return max(float((p - q).detach().abs().max()) for p, q in zip(params_of(a), params_of(b), strict=True))


def test_every_scheduler_of_torchs_has_a_case() -> None:
    exported = {
        name
        for module in (lr_scheduler, swa_utils)
        for name in module.__all__
        if isinstance(getattr(module, name), type) and issubclass(getattr(module, name), LRScheduler)
    }
    assert exported - {"LRScheduler"} == {name.split(",")[0] for name in SCHEDULERS}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_run_is_the_one_of_torchs_optimizer(name: str, rule: str, target: str, rate: str) -> None:
    if name in ONE_EACH and target == "one group":
        target = "groups"
    ours, theirs = attached(rule, target, RATES[rate]), torchs(rule, target, RATES[rate])
    before = [group["lr"] for group in ours.param_groups]
    found = train(ours, SCHEDULERS[name](ours), range(STEPS))
    expected = train(theirs, SCHEDULERS[name](theirs), range(STEPS))
    assert found == expected
    assert len({str(value) for value in found}) > 1  # the schedule went somewhere
    assert distance(ours, theirs) <= BOUND
    if rate == "tensor":  # and whoever holds the tensor sees the rate
        assert all(group["lr"] is lr for group, lr in zip(ours.param_groups, before, strict=True))


class PlainProdigy(torch.optim.Optimizer):
    """One d of all groups, which have rates and β₁ of their own, in plain torch."""

    def __init__(self, groups: Any, d0: float) -> None:
        super().__init__(groups, {"lr": 1.0, "betas": (0.9, 0.999)})
        self.d = self.d_max = self.d0 = d0
        self.numerator = 0.0

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        d, beta3 = self.d, 0.999**0.5
        moving = [(p, g) for g in self.param_groups if g["lr"] > 0 for p in g["params"]]
        self.numerator *= beta3 if moving else 1.0
        for p, group in moving:
            state, beta1, eta = self.state[p], group["betas"][0], d * float(group["lr"])
            if not state:
                state.update({key: torch.zeros_like(p) for key in "mvs"}, first=p.clone())
            self.numerator += d / self.d0 * eta * float((p.grad * (state["first"] - p)).sum())
            state["m"].mul_(beta1).add_(p.grad, alpha=d * (1 - beta1))
            state["v"].mul_(0.999).add_(p.grad**2, alpha=d**2 * 0.001)
            state["s"].mul_(beta3).add_(p.grad, alpha=d / self.d0 * eta)
        if moving:
            seen = self.numerator / sum(float(self.state[p]["s"].abs().sum()) for p, _ in moving)
            self.d_max = max(self.d_max, seen)
            self.d = self.d_max
        for p, group in moving:
            eta, state = d * float(group["lr"]), self.state[p]
            p.sub_(eta * state["m"] / (state["v"].sqrt() + self.d * 1e-8))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_rate_that_schedulers_write_is_a_factor_of_what_prodigy_finds(name: str, rate: str) -> None:
    first, second = parameters()
    groups = [{"params": [first], "lr": RATES[rate](0.4)}, {"params": [second], "lr": RATES[rate](0.2)}]
    ours, theirs = neon_optim.Prodigy(d0=1e-3).attach(groups), PlainProdigy(parameters_in_groups(0.4, 0.2), 1e-3)
    found = train(ours, SCHEDULERS[name](ours), range(STEPS))
    assert found == train(theirs, SCHEDULERS[name](theirs), range(STEPS))
    assert len({str(value) for value in found}) > 1  # the schedule went somewhere
    assert distance(ours, theirs) <= BOUND
    assert [float(group["d"]) for group in ours.param_groups] == pytest.approx([theirs.d] * 2, rel=BOUND)
    assert theirs.d > 1e-3 or name == "OneCycleLR, three phases"  # with its small rates no weight goes far enough


# neon's drop-in classes, whose momentum is torch's: it is cycled too
DROP_INS: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "weight_decay": 0.1},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "AdamW": {"amsgrad": True},
}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("rule", DROP_INS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_run_of_a_drop_in_class_is_the_one_of_torchs(name: str, rule: str, rate: str) -> None:
    runs = []
    for package in (neon.torch, torch.optim):
        first, second = parameters()
        groups = [{"params": [first], "lr": RATES[rate](0.1)}, {"params": [second], "lr": RATES[rate](0.05)}]
        optimizer = getattr(package, rule)(groups, 0.1, **DROP_INS[rule])
        runs.append((optimizer, train(optimizer, SCHEDULERS[name](optimizer), range(STEPS))))
    assert runs[0][1] == runs[1][1]
    assert distance(runs[0][0], runs[1][0]) <= BOUND


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_scheduler_that_is_resumed(name: str, rate: str) -> None:
    """Both are made anew and load what was saved: the run ends with the same bits."""
    whole = attached("AdamW", "MultiOptimizer", RATES[rate])
    scheduler = SCHEDULERS[name](whole)
    train(whole, scheduler, range(5))
    saved = copy.deepcopy((scheduler.state_dict(), whole.state_dict(), params_of(whole)))
    rest = train(whole, scheduler, range(5, STEPS))

    resumed = attached("AdamW", "MultiOptimizer", RATES[rate])
    scheduler = SCHEDULERS[name](resumed)
    scheduler.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    for p, q in zip(params_of(resumed), saved[2], strict=True):
        p.data.copy_(q)
    assert train(resumed, scheduler, range(5, STEPS)) == rest
    assert distance(whole, resumed) == 0


@pytest.mark.parametrize("made", ["before the first step", "after it"])
@pytest.mark.parametrize("make", [lambda lr: torch.optim.AdamW(parameters(), lr), "neon"], ids=["torch", "neon"])
def test_the_order_of_steps_is_watched_as_torch_watches_it(make: Any, made: str) -> None:
    """Warnings are errors here: there is one for `scheduler.step()` alone, and none otherwise."""
    for order in ("optimizer first", "scheduler first"):
        optimizer = attached("AdamW", "one group", float) if make == "neon" else make(0.1)
        if made == "after it":
            optimizer.step()
        scheduler = lr_scheduler.StepLR(optimizer, 2)
        if order == "optimizer first":
            optimizer.step()
            scheduler.step()
        else:
            with pytest.warns(UserWarning, match=r"lr_scheduler\.step\(\)` before `optimizer\.step"):
                scheduler.step()


def test_a_step_that_was_replaced_by_hand_is_missed_by_the_scheduler_as_torch_has_it() -> None:
    optimizer = attached("AdamW", "one group", float)
    scheduler = lr_scheduler.StepLR(optimizer, 2)
    optimizer.step = type(optimizer).step.__get__(optimizer)  # type: ignore[method-assign]
    optimizer.step()
    with pytest.warns(UserWarning, match="overridden after learning rate scheduler initialization"):
        scheduler.step()


def test_a_plateau_that_cools_down_and_a_floor() -> None:
    runs = []
    for optimizer in (attached("AdamW", "groups", float), torchs("AdamW", "groups", float)):
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, "max", 0.1, 0, min_lr=[0.02, 0.001])
        for metric in (1.0, 2.0, 2.0, 1.0, 1.0):
            optimizer.step()
            scheduler.step(metric)
        runs.append([scheduler.get_last_lr(), values(optimizer)])
    assert runs[0] == runs[1]
    assert runs[0][0] == pytest.approx([0.02, 0.001])


# -- beside schedules of neon's --------------------------------------------------------------------


@pytest.mark.parametrize("lr", RATES.values(), ids=RATES)
@pytest.mark.parametrize("unit", ["steps", "epochs"])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedule_of_neons_keeps_its_group_from_a_scheduler_over_the_whole(name: str, unit: Any, lr: Make) -> None:
    schedule = neon_optim.WarmupCosine(2, 2 * STEPS, unit=unit)
    mapping = {
        "default": neon_optim.Adam(learning_rate=0.1),
        "Bias": neon_optim.GradientDescentMomentum(0.2, 0.0, schedule=schedule),
    }
    optimizer = MultiOptimizer(mapping).attach(nn.Linear(2, 1).double())
    for group in optimizer.param_groups:
        group["lr"] = lr(group["lr"])
    own, theirs = (group["params"][0] for group in reversed(optimizer.param_groups))
    scheduler = SCHEDULERS[name](optimizer)
    for step in range(STEPS):
        optimizer.set_epoch(step)
        for param in (own, theirs):
            param.grad = torch.ones_like(param)
        before = own.detach().clone()
        optimizer.step()
        torch.testing.assert_close(before - own, torch.full_like(own, schedule.get_learning_rate(0.2, step)))
        scheduler.step(*([1.0] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))


# -- averaged models -------------------------------------------------------------------------------

AVERAGES: dict[str, dict[str, Any]] = {
    "SWA": {},
    "SWA, foreach": {"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()},
    "EMA": {"avg_fn": swa_utils.get_ema_avg_fn(0.8)},
    "EMA, foreach": {"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.8), "use_buffers": True},
}


@pytest.mark.parametrize("name", AVERAGES)
def test_an_averaged_model_is_the_one_of_torchs_optimizer(name: str) -> None:
    averages, steps = [], []
    for make in (
        lambda m: neon_optim.AdamW(learning_rate=0.1).attach(m),
        lambda m: torch.optim.AdamW(m.parameters(), 0.1),
    ):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
        data = [torch.randn(6, 3, dtype=torch.float64) for _ in range(6)]
        optimizer = make(model)
        average = swa_utils.AveragedModel(model, **AVERAGES[name])
        scheduler = swa_utils.SWALR(optimizer, 0.02, anneal_epochs=3)
        for x in data:
            optimizer.zero_grad()
            (model(x) - x.sum(1, keepdim=True)).square().mean().backward()
            optimizer.step()
            scheduler.step()
            average.update_parameters(model)
        swa_utils.update_bn(data, average)
        averages.append([*average.module.parameters(), *average.module.buffers()])
        steps.append((int(average.n_averaged), optimizer.param_groups[0]["lr"]))
    assert steps[0] == steps[1] == (6, 0.02)
    for ours, theirs in zip(*averages, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=BOUND)
