"""Where torch has the same rule, a hundred steps of both give the same parameters, in float64.

The models are trained for real, each by its own optimizer, so a difference at one step would grow.
torch and neon order a few multiplications differently; `BOUND` is what that costs after 100 steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference
import torch
from torch.optim import lr_scheduler

import neon.optimizers as neon_optim
import neon.torch
from neon.engine import use_backend

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 100
BOUND = 2e-14  # relative to the largest entry of a tensor; seen: 4e-15
TINY = 1e-100  # an ε that is lost beside any root met here, so that its place does not matter

Params = list[torch.nn.Parameter]
Make = Callable[[Any], Any]


def model() -> torch.nn.Sequential:
    torch.manual_seed(5)
    parts = [torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3)]
    return torch.nn.Sequential(*parts).double()


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(12, 6, generator=generator, dtype=torch.float64)
    return x, torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin(), x.sum(1)], 1)


def train(net: torch.nn.Module, optimizer: torch.optim.Optimizer, *, each: Any = None) -> None:
    """A hundred steps; `each` is called between backward and step."""
    for step in range(STEPS):
        x, y = batch(step)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(x), y).backward()
        if each is not None:
            each(net)
        optimizer.step()


def distance(a: torch.nn.Module, b: torch.nn.Module) -> float:
    """The largest difference of two models, relative to each tensor's largest entry."""
    return max(
        float((p.detach() - q.detach()).abs().max() / q.detach().abs().max())
        for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


# name: (neon's, torch's, the states that both keep under one name)
SAME: dict[str, tuple[Any, Make, tuple[str, ...]]] = {
    "SGD": (
        neon_optim.GradientDescentMomentum(0.05, 0.0, wdecay=0.01),
        lambda p: torch.optim.SGD(p, 0.05, weight_decay=0.01),
        (),
    ),
    # v = −lr·buffer at a constant rate, so θ + v is torch's θ − lr·buffer
    "SGD with momentum": (
        neon_optim.GradientDescentMomentum(0.05, 0.9, wdecay=0.01),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01),
        (),
    ),
    # θ + γv − lr·g = θ − lr(g + γ·buffer), torch's form
    "SGD, Nesterov": (
        neon_optim.GradientDescentMomentum(0.05, 0.9, wdecay=0.01, nesterov=True),
        lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, weight_decay=0.01, nesterov=True),
        (),
    ),
    # torch has √μ + ε, neon √(μ+ε) + ε
    "RMSProp": (
        neon_optim.RMSProp(learning_rate=0.01, epsilon=TINY, wdecay=0.01),
        lambda p: torch.optim.RMSprop(p, 0.01, alpha=0.95, eps=TINY, weight_decay=0.01),
        ("square_avg",),
    ),
    # torch has √G + ε, neon √(G+ε)
    "Adagrad": (
        neon_optim.Adagrad(learning_rate=0.1, epsilon=TINY, wdecay=0.01),
        lambda p: torch.optim.Adagrad(p, 0.1, eps=TINY, weight_decay=0.01),
        ("sum",),
    ),
    "Adadelta": (
        neon_optim.Adadelta(decay=0.9, wdecay=0.01),
        lambda p: torch.optim.Adadelta(p, 1.0, rho=0.9, eps=1e-6, weight_decay=0.01),
        ("square_avg", "acc_delta"),
    ),
    "Adam": (
        neon_optim.Adam(learning_rate=0.01),
        lambda p: torch.optim.Adam(p, 0.01),
        ("exp_avg", "exp_avg_sq"),
    ),
    "Adam, tuned": (
        neon_optim.Adam(learning_rate=0.02, beta_1=0.5, beta_2=0.9, epsilon=0.01, wdecay=0.01),
        lambda p: torch.optim.Adam(p, 0.02, (0.5, 0.9), 0.01, weight_decay=0.01),
        ("exp_avg", "exp_avg_sq"),
    ),
    "AdamW": (
        neon_optim.AdamW(learning_rate=0.01),
        lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.01),
        ("exp_avg", "exp_avg_sq"),
    ),
    "AdamW, tuned": (
        neon_optim.AdamW(learning_rate=0.02, beta_1=0.5, beta_2=0.9, epsilon=0.01, wdecay=0.3),
        lambda p: torch.optim.AdamW(p, 0.02, (0.5, 0.9), 0.01, weight_decay=0.3),
        ("exp_avg", "exp_avg_sq"),
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_a_hundred_steps(name: str) -> None:
    opt, make_theirs, states = SAME[name]
    ours, theirs = model(), model()
    a, b = opt.attach(ours), make_theirs(theirs.parameters())
    train(ours, a)
    train(theirs, b)
    assert distance(theirs, model()) > 0.1  # the hundred steps went somewhere
    assert distance(ours, theirs) <= BOUND
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        for state in states:
            x, y = a.state[p][state], b.state[q][state]
            assert float((x - y).abs().max()) <= BOUND * float(y.abs().max()), state
        if "step" in b.state[q]:
            assert float(a.state[p]["step"]) == STEPS


@pytest.mark.parametrize("nesterov", [False, True])
def test_velocity_is_minus_lr_times_the_buffer(nesterov: bool) -> None:
    """Its own name, `velocity`, because torch's `momentum_buffer` means another number."""
    ours, theirs = model(), model()
    opt = neon_optim.GradientDescentMomentum(0.05, 0.9, nesterov=nesterov)
    a = opt.attach(ours)
    b = torch.optim.SGD(theirs.parameters(), 0.05, momentum=0.9, nesterov=nesterov)
    train(ours, a)
    train(theirs, b)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        v, buffer = a.state[p]["velocity"], b.state[q]["momentum_buffer"]
        assert float((v + 0.05 * buffer).abs().max()) <= BOUND * float(buffer.abs().max())


def clip_norm_exactly(net: torch.nn.Module, bound: float) -> None:
    """torch divides by ‖g‖ + 10⁻⁶; a bound that is larger in that ratio takes the 10⁻⁶ out."""
    norm = float(torch.nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None]))
    torch.nn.utils.clip_grad_norm_(net.parameters(), bound * (norm + 1e-6) / norm)


# name: (neon's options, what torch does to the gradients)
CLIPS: dict[str, tuple[dict[str, Any], Make]] = {
    "norm": ({"gradient_clip_norm": 0.5}, lambda net: clip_norm_exactly(net, 0.5)),
    "value": (
        {"gradient_clip_value": 0.05},
        lambda net: torch.nn.utils.clip_grad_value_(net.parameters(), 0.05),
    ),
    "norm, then value": (
        {"gradient_clip_norm": 0.5, "gradient_clip_value": 0.05},
        lambda net: (
            clip_norm_exactly(net, 0.5),
            torch.nn.utils.clip_grad_value_(net.parameters(), 0.05),
        ),
    ),
}


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_clipping(rule: str, name: str) -> None:
    options, clip = CLIPS[name]
    ours, theirs = model(), model()
    if rule == "SGD":  # Adam forgives a scale that is wrong by a constant, SGD does not
        opt: Any = neon_optim.GradientDescentMomentum(0.05, 0.9, **options)
        other: Any = torch.optim.SGD(theirs.parameters(), 0.05, momentum=0.9)
    else:
        opt = neon_optim.Adam(learning_rate=0.01, **options)
        other = torch.optim.Adam(theirs.parameters(), 0.01)
    clipped = []

    def clip_and_count(net: torch.nn.Module) -> None:
        before = [p.grad.clone() for p in net.parameters() if p.grad is not None]
        clip(net)
        after = [p.grad for p in net.parameters() if p.grad is not None]
        clipped.append(not all(torch.equal(x, y) for x, y in zip(before, after, strict=True)))

    train(ours, opt.attach(ours))
    train(theirs, other, each=clip_and_count)
    assert any(clipped)
    if name == "norm":
        assert not all(clipped)  # both sides of min(1, k/‖g‖)
    assert distance(ours, theirs) <= BOUND


def test_groups_with_their_own_rates() -> None:
    ours, theirs = model(), model()

    def groups(net: torch.nn.Sequential) -> list[dict[str, Any]]:
        return [
            {"params": list(net[0].parameters()), "lr": 0.05},
            {"params": list(net[2].parameters()), "weight_decay": 0.1, "betas": (0.5, 0.9)},
        ]

    train(ours, neon_optim.Adam(learning_rate=0.01).attach(groups(ours)))
    train(theirs, torch.optim.Adam(groups(theirs), 0.01))
    assert distance(ours, theirs) <= BOUND


SCHEDULERS: dict[str, Make] = {
    "StepLR": lambda o: lr_scheduler.StepLR(o, 20, 0.5),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 0.05, total_steps=STEPS + 1),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
}


def train_scheduled(net: torch.nn.Module, optimizer: torch.optim.Optimizer, make: Make) -> None:
    scheduler = make(optimizer)
    for step in range(STEPS):
        x, y = batch(step)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("rule", ["Adam", "AdamW", "SGD"])
def test_torch_schedulers_drive_an_attached_optimizer(rule: str, name: str) -> None:
    """OneCycleLR moves `betas` too. SGD goes without momentum: torch's buffer does not hold lr."""
    ours, theirs = model(), model()
    if rule == "SGD":
        opt: Any = neon_optim.GradientDescentMomentum(0.01, 0.0)
        other: Any = torch.optim.SGD(theirs.parameters(), 0.01, momentum=0.0)
        if name == "OneCycleLR":  # without momentum there is nothing to cycle, and torch insists
            make: Make = lambda o: lr_scheduler.OneCycleLR(  # noqa: E731
                o, 0.05, total_steps=STEPS + 1, cycle_momentum=False
            )
        else:
            make = SCHEDULERS[name]
    else:
        opt = getattr(neon_optim, rule)(learning_rate=0.01)
        other = getattr(torch.optim, rule)(theirs.parameters(), 0.01, weight_decay=opt_decay(rule))
        make = SCHEDULERS[name]
    attached = opt.attach(ours)
    train_scheduled(ours, attached, make)
    train_scheduled(theirs, other, make)
    assert attached.param_groups[0]["lr"] == other.param_groups[0]["lr"] != 0.01
    assert distance(ours, theirs) <= BOUND


def opt_decay(rule: str) -> float:
    return 0.01 if rule == "AdamW" else 0.0


def test_one_cycle_moves_the_momentum_of_a_velocity_that_holds_the_rate() -> None:
    """With a moving rate neon's v = γv − αg is not torch's −lr·buffer: the reference decides."""
    p = torch.nn.Parameter(torch.tensor([0.5, -2.0, 3.0], dtype=torch.float64))
    attached = neon_optim.GradientDescentMomentum(0.01, 0.9).attach([p])
    scheduler = lr_scheduler.OneCycleLR(attached, 0.5, total_steps=STEPS + 1)
    ref = reference.GradientDescentMomentum(learning_rate=0.0, momentum_coef=0.9)
    expected, seen = [p.detach().numpy().copy()], set()
    for step in range(STEPS):
        group = attached.param_groups[0]
        ref.learning_rate, ref.momentum_coef = group["lr"], group["momentum"]
        seen.add(ref.momentum_coef)
        p.grad = batch(step)[0][0, :3].clone()
        ref.step(expected, [p.grad.numpy()])
        attached.step()
        scheduler.step()
    assert len(seen) > STEPS // 2
    np.testing.assert_allclose(p.detach().numpy(), expected[0], rtol=1e-12)


LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "Adam": ("Adam", {"lr": 0.1}),
    "AMSGrad": ("Adam", {"lr": 0.1, "amsgrad": True}),
    "AdamW": ("AdamW", {"lr": 0.1}),
    "RMSprop": ("RMSprop", {"lr": 0.1}),
    "RMSprop with momentum": ("RMSprop", {"lr": 0.1, "momentum": 0.5}),
    "Adadelta": ("Adadelta", {"rho": 0.999}),
}


@pytest.mark.parametrize("backend", ["eager", "numba"])
@pytest.mark.parametrize("case", LARGE)
def test_a_large_gradient_is_finite_where_it_is_torch_s(case: str, backend: str) -> None:
    """In float32 the square of 1e20 is infinite; times one less the decay before that, it is not. Of 1e30 it is."""
    name, values = LARGE[case]
    ends = []
    for library in (torch.optim, neon.torch):
        weight = torch.nn.Parameter(torch.zeros(4))
        with use_backend(backend):
            optimizer = getattr(library, name)([weight], **values)
            for gradient in ([1e20, -3e19, 1e30, 1.0], [1.0] * 4, [1.0] * 4):
                weight.grad = torch.tensor(gradient)
                optimizer.step()
        state = optimizer.state[weight]
        ends.append([weight.detach(), state["square_avg" if "square_avg" in state else "exp_avg_sq"]])
    assert ends[0][1].isfinite().tolist() == [True, True, False, True]
    # Adadelta's ratio under the root is then a denormal number, of few digits.
    tolerance = 5e-3 if case == "Adadelta" else 1e-6
    for ours, theirs in zip(ends[1], ends[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=1e-12, equal_nan=True)
