"""attach(): what a torch optimizer owes to loops, closures, groups, schedulers and hooks."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from seeded_parameters import give, parameter, sgd, zeros
from torch import nn

from neon.optimizers import (
    Adam,
    AdamW,
    MultiOptimizer,
    Optimizer,
    Schedule,
    ShiftAdaMax,
)
from neon.torch import AttachedOptimizer

# -- the interface ---------------------------------------------------------------------------------


def test_it_is_a_torch_optimizer() -> None:
    opt = Adam().attach([parameter(2)])
    assert isinstance(opt, AttachedOptimizer)
    assert isinstance(opt, torch.optim.Optimizer)
    for place in (opt.defaults, opt.param_groups[0]):
        assert place["lr"] == 0.001
        assert tuple(place["betas"]) == (0.9, 0.999)
        assert place["eps"] == 1e-8
        assert place["weight_decay"] == 0
    assert sgd(0.1, 0.9).attach([parameter(2)]).defaults["momentum"] == 0.9


def test_step_runs_the_closure_with_gradients_and_returns_its_loss() -> None:
    w = parameter(3)
    before = w.detach().clone()
    opt = sgd(0.5).attach([w])
    calls = []

    def closure() -> torch.Tensor:
        assert torch.is_grad_enabled()
        opt.zero_grad()
        loss = w.square().sum()
        loss.backward()
        calls.append(loss)
        return loss

    with torch.no_grad():
        assert opt.step(closure) is calls[0]
        assert not torch.is_grad_enabled()
    assert opt.step(closure=closure) is calls[1]
    assert torch.equal(w, torch.zeros(3))
    assert calls[0].item() == pytest.approx(before.square().sum().item())
    assert opt.step() is None


def test_a_closure_that_fails_changes_nothing() -> None:
    w = zeros(2)
    opt = sgd(0.5).attach([w])

    def closure() -> float:
        raise RuntimeError("no data")

    with pytest.raises(RuntimeError, match="no data"):
        opt.step(closure)
    assert not w.any()
    assert not opt.state


def test_zero_grad() -> None:
    w = zeros(2)
    opt = sgd(0.5).attach([w])
    opt.zero_grad(set_to_none=False)
    assert w.grad is not None
    assert not w.grad.any()
    opt.zero_grad()
    assert w.grad is None
    opt.step()
    assert not w.any()


TARGETS: dict[str, Callable[[nn.Module], Any]] = {
    "module": lambda m: m,
    "parameters": lambda m: m.parameters(),
    "list": lambda m: list(m.parameters()),
    "named": lambda m: m.named_parameters(),
    "generator": lambda m: (p for p in m.parameters()),
    "groups": lambda m: [{"params": [m.weight]}, {"params": m.bias}],  # type: ignore[union-attr]
    "named groups": lambda m: [{"params": [item]} for item in m.named_parameters()],
}


@pytest.mark.parametrize("target", TARGETS)
def test_what_attach_takes(target: str) -> None:
    module = nn.Linear(2, 3)
    for p in module.parameters():
        nn.init.zeros_(p)
        p.grad = torch.ones_like(p)
    opt = sgd(1.0).attach(TARGETS[target](module))
    opt.step()
    assert all((p == -1).all() for p in module.parameters())
    if "named" in target or target == "module":
        assert [n for group in opt.param_groups for n in group["param_names"]] == ["weight", "bias"]


def test_groups_have_values_of_their_own() -> None:
    a, b, c = zeros(1), zeros(1), zeros(1)
    groups = [
        {"params": [a]},
        {"params": [b], "lr": 2},
        {"params": [c], "weight_decay": 0.5, "gradient_clip_value": 0.5},
    ]
    opt = sgd(1.0).attach(groups)
    opt.step()
    opt.param_groups[0]["lr"] = 0.25
    opt.step()
    assert (a.item(), b.item()) == (-1.25, -4)
    assert c.item() == -0.5 - (0.5 - 0.25)


def test_options_of_a_group_may_be_switched_on_and_off() -> None:
    w = zeros(2)
    opt = sgd(1.0).attach([w])
    for change, expected in (
        ({}, -1.0),
        ({"gradient_clip_value": 0.5}, -1.5),
        ({"gradient_clip_value": None, "gradient_clip_norm": 0.5**0.5}, -2.0),
        ({"gradient_clip_norm": None, "param_clip_value": 2.25}, -2.25),
        ({"param_clip_value": None}, -3.25),
        ({"momentum": 0.5}, -4.25),
        ({}, -5.75),
        ({"nesterov": True}, -5.75 + 0.5 * (0.5 * -1.5 - 1) - 1),
    ):
        opt.param_groups[0].update(change)
        opt.step()
        assert w.tolist() == pytest.approx([expected] * 2)


def test_the_rate_may_be_a_tensor_changed_in_place() -> None:
    w = zeros(1)
    rate = torch.tensor(0.5)
    opt = sgd(1.0).attach([{"params": [w], "lr": rate}])
    opt.step()
    rate.fill_(0.25)
    opt.step()
    assert w.item() == -0.75
    opt.param_groups[0]["lr"] = torch.tensor([2.0], dtype=torch.float64)
    opt.step()
    assert w.item() == -2.75
    assert opt.param_groups[0]["lr"].dtype == torch.float64


def test_a_group_may_be_added_in_mid_run() -> None:
    a, b, c = zeros(1), zeros(2), zeros(1)
    opt = sgd(1.0, 0.5).attach([a])
    opt.step()
    opt.add_param_group({"params": b, "lr": 2.0})
    opt.step()
    opt.add_param_group({"params": iter([c])})
    opt.step()
    assert (a.item(), b.tolist(), c.item()) == (-1 - 1.5 - 1.75, [-5, -5], -1)
    with pytest.raises(ValueError, match="more than one parameter group"):
        opt.add_param_group({"params": [a]})
    with pytest.raises(TypeError, match=r"param_group must be a dict\. Received: list"):
        opt.add_param_group([a])  # type: ignore[arg-type]


@pytest.mark.parametrize("mapping", [False, True])
def test_a_group_without_names_may_follow_groups_that_have_some(mapping: bool) -> None:
    """As callbacks that unfreeze layers add them; copies, checkpoints and layers by name find the names it is given."""
    head, backbone, more = (torch.nn.Linear(2, 2) for _ in range(3))

    def made() -> AttachedOptimizer:
        rule: Optimizer = MultiOptimizer({"default": sgd(1.0), "weight": sgd(0.5)}) if mapping else sgd(1.0)
        opt = rule.attach(head)
        opt.add_param_group({"params": list(backbone.parameters()), "lr": 0.25})
        opt.add_param_group({"params": more.weight})
        return opt

    opt = made()
    places = range(len(opt.param_groups) - 2, len(opt.param_groups))
    assert [opt.param_groups[place]["param_names"] for place in places] == [
        [f"group_{places[0]}.0", f"group_{places[0]}.1"],
        [f"group_{places[1]}.0"],
    ]
    opt.set("lr", 0.5, layers=f"group_{places[0]}.1")
    before = [p.detach().clone() for p in backbone.parameters()]
    for p in backbone.parameters():
        p.grad = torch.ones_like(p)
    opt.step()
    moved = [(b - p).mean().item() for b, p in zip(before, backbone.parameters(), strict=True)]
    assert moved == pytest.approx([0.25, 0.5])
    again = made()
    again.load_state_dict(opt.state_dict())
    assert again.param_groups[places[0]]["overrides"] == opt.param_groups[places[0]]["overrides"]
    with pytest.raises(TypeError, match="ordered collections"):
        opt.add_param_group({"params": set(more.parameters())})


def test_a_group_added_later_is_in_the_same_epoch() -> None:
    a, b = zeros(1), zeros(1)
    opt = sgd(1.0, schedule=Schedule([2], 0.25)).attach([a])
    opt.set_epoch(3)
    opt.add_param_group({"params": [b]})
    opt.step()
    assert (a.item(), b.item()) == (-0.25, -0.25)


# -- schedulers ------------------------------------------------------------------------------------


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
    "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "CosineAnnealingWarmRestarts": lambda o: torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.5, total_steps=8),
    "CyclicLR": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.1, 0.5, 2, cycle_momentum=True),
    "SequentialLR": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=2), torch.optim.lr_scheduler.ExponentialLR(o, 0.5)],
        [2],
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_torchs_schedulers_drive_it_as_they_drive_torchs(name: str) -> None:
    ours, torchs = (parameter(3, dtype=torch.float64) for _ in range(2))
    mapping = MultiOptimizer({"default": AdamW(learning_rate=0.1, wdecay=0.1)})
    pairs = [(ours, mapping.attach([ours])), (torchs, torch.optim.AdamW([torchs], lr=0.1, weight_decay=0.1))]
    schedulers = [SCHEDULERS[name](opt) for _, opt in pairs]
    for step in range(7):
        for (p, opt), scheduler in zip(pairs, schedulers, strict=True):
            give([p], step)
            opt.step()
            scheduler.step()
        assert pairs[0][1].param_groups[0]["lr"] == pairs[1][1].param_groups[0]["lr"]
    torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-14)


def test_reduce_on_plateau_and_a_constant_schedule_leave_the_rate_alone() -> None:
    opt = MultiOptimizer({"default": sgd(1.0)}).attach([zeros(1)])
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=0)
    for epoch in range(3):
        opt.set_epoch(epoch)
        opt.step()
        scheduler.step(1.0)
    opt.set_epoch(7)
    assert opt.param_groups[0]["lr"] == 0.25


# -- memory and hooks ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["direct", "staged"])
def test_gradients_are_let_go(how: str) -> None:
    w = nn.Parameter(torch.zeros(4, 4) if how == "direct" else torch.zeros(4, 8)[:, ::2])
    w.grad = torch.ones(4, 4)
    opt = Adam(gradient_clip_norm=1.0).attach([w])
    opt.step()
    alive = weakref.ref(w.grad)
    opt.zero_grad()
    gc.collect()
    assert alive() is None


def test_parameters_are_let_go_with_their_optimizer() -> None:
    model = nn.Linear(3, 3)
    opt = Adam().attach(model)
    give(model.parameters(), 0)
    opt.step()
    alive = weakref.ref(model.weight), weakref.ref(opt.state[model.weight]["exp_avg"])
    del model, opt
    gc.collect()
    assert [ref() for ref in alive] == [None, None]


def test_hooks_and_a_replaced_step_are_called() -> None:
    w = zeros(1)
    opt = sgd(1.0).attach([w])
    seen: list[str] = []
    opt.register_step_pre_hook(lambda *_: seen.append("before"))
    opt.register_step_post_hook(lambda *_: seen.append("after"))
    inner = opt.step

    def step(*args: Any, **kwargs: Any) -> Any:
        seen.append("mine")
        return inner(*args, **kwargs)

    opt.step = step  # type: ignore[method-assign]
    opt.step()
    assert seen == ["mine", "before", "after"]
    assert w.item() == -1


def test_the_epoch_reaches_rules_that_ask_for_it() -> None:
    moved = []
    for epoch in (0, 3):
        w = zeros(1)
        opt = ShiftAdaMax(learning_rate=0.25, beta_1=0.5).attach([w])
        opt.set_epoch(epoch)
        opt.step()
        moved.append(-w.item())
    # shift(½, 1) · 2^rint(log₂(0.25 / (1 − ½ᵗ))): t = 1 gives ½, t = 4 gives ¼
    assert moved == [0.25, 0.125]
