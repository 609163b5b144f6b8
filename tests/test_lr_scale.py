"""Multipliers of rates: each layer steps by its own share of the rate, whatever writes the rate."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

import neon.optimizers as neon_optim
import neon.torch
from neon.optimizers import Adam, AdamW, GradientDescentMomentum, MultiOptimizer, Optimizer, WarmupCosine
from neon.optimizers.functions import sign

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, DEPTH, RATE = 7, 3, 1e-2
SCALES = {"embed": 0.65**4, "blocks.0": 0.65**3, "blocks.1": 0.65**2, "blocks.2": 0.0}


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 8)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True) for _ in range(DEPTH)
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        for block in self.blocks:
            h = block(h)
        return self.head(h)


def network() -> Transformer:
    torch.manual_seed(1)
    return Transformer()


def scale_of(name: str) -> float:
    return next((scale for layer, scale in SCALES.items() if name.startswith(layer)), 1.0)


def loss_of(model: nn.Module, step: int) -> Tensor:
    x = torch.randint(0, 5, (3, 6), generator=torch.Generator().manual_seed(step))
    return nn.functional.cross_entropy(model(x).flatten(0, 1), x.flip(1).flatten())


def with_scales(optimizer: Any) -> Any:
    for layer, scale in SCALES.items():
        optimizer.set("lr_scale", scale, layers=layer)
    return optimizer


def by_hand(model: nn.Module, make: Callable[..., Any]) -> Any:
    """One group for each parameter, whose rate is written below."""
    return make([{"params": [(name, p)]} for name, p in model.named_parameters()])


def tensor(lr: float) -> Tensor:
    return torch.tensor(lr, dtype=torch.float64)  # as many digits as the host computes with


MAKE: dict[str, Callable[..., Any]] = {
    "AdamW": lambda params: AdamW(learning_rate=RATE, wdecay=0.1).attach(params),
    "momentum": lambda params: GradientDescentMomentum(RATE, 0.9, wdecay=0.1, nesterov=True).attach(params),
    "in backward": lambda params: AdamW(learning_rate=RATE).attach(params, in_backward=True),
    "torch's AdamW": lambda params: neon.torch.AdamW(params, lr=RATE),
    "torch's SGD": lambda params: neon.torch.SGD(params, lr=RATE, momentum=0.9, weight_decay=0.1),
    "lr is a tensor": lambda params: neon.torch.Adam(params, lr=tensor(RATE)),
}
SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 2 * RATE, total_steps=STEPS + 1),
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda t: min(1.0, (t + 1) / 3) * 0.9**t),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=0.3, patience=0, threshold=10.0),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, total_iters=2), lr_scheduler.CosineAnnealingLR(o, 5)], [2]
    ),
}


def rates(scheduler: Callable[[Any], Any], lr: Any, model: nn.Module) -> Iterator[dict[str, Any]]:
    """What a scheduler makes of torch's own optimizer, step by step."""
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=lr)
    made = scheduler(optimizer)
    for step in range(STEPS):
        group = optimizer.param_groups[0]
        yield {"lr": float(group["lr"]), "betas": group["betas"]}
        optimizer.step()
        made.step(loss_of(model, step).item()) if isinstance(made, lr_scheduler.ReduceLROnPlateau) else made.step()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("kind", MAKE)
def test_scaled_layers_follow_every_scheduler_bit_for_bit(kind: str, scheduler: str) -> None:
    """As if each layer were a group, its rate multiplied by hand before each step."""
    model, other = network(), network()
    scaled = with_scales(MAKE[kind](model.named_parameters()))
    cycled = "betas" if "betas" in scaled.param_groups[0] else "momentum"
    made = SCHEDULERS[scheduler](scaled)
    plain = by_hand(other, MAKE[kind])
    lr = tensor(RATE) if kind == "lr is a tensor" else RATE
    for step, group in enumerate(rates(SCHEDULERS[scheduler], lr, other)):
        assert float(scaled.param_groups[0]["lr"]) == pytest.approx(group["lr"], rel=1e-15)
        for own in plain.param_groups:
            # the scheduler's own bits: what is compared is the multiplication
            rate = float(scaled.param_groups[0]["lr"]) * scale_of(own["param_names"][0])
            own["lr"] = tensor(rate) if isinstance(own["lr"], Tensor) else rate
            own[cycled] = scaled.param_groups[0][cycled]
        for net, optimizer in ((model, scaled), (other, plain)):
            loss_of(net, step).backward()
            optimizer.step()
            optimizer.zero_grad()
        made.step(loss_of(model, step).item()) if isinstance(made, lr_scheduler.ReduceLROnPlateau) else made.step()
    assert [*map(torch.equal, model.parameters(), other.parameters())] == [True] * len([*model.parameters()])
    torch.testing.assert_close([*scaled.state.values()], [*plain.state.values()], rtol=0, atol=0)
    still = {name for name, p in model.named_parameters() if torch.equal(p, dict(network().named_parameters())[name])}
    assert still == {name for name in dict(model.named_parameters()) if name.startswith("blocks.2")}


@pytest.mark.parametrize("name", ["GradientDescentMomentum", "RMSProp", "Adagrad", "Adadelta", "ShiftAdaMax", "Lion"])
@pytest.mark.parametrize("how", ["mapping", "set", "group"])
def test_every_rule_with_a_rate_takes_it(name: str, how: str) -> None:
    def description(**options: Any) -> Any:
        made = getattr(neon_optim, name)
        return made(0.1, 0.9, **options) if name == "GradientDescentMomentum" else made(learning_rate=0.1, **options)

    ends = []
    for scaled in (True, False):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        torch.manual_seed(0)
        for p in model.parameters():
            nn.init.normal_(p)
        groups: list[Any] = [{"params": [*layer.parameters()]} for layer in model]
        if not scaled:
            groups[0]["lr"] = 0.1 * 0.25
            optimizer = description().attach(groups)
        elif how == "mapping":
            optimizer = MultiOptimizer({"default": description(), "0": description(lr_scale=0.25)}).attach(model)
        elif how == "set":
            optimizer = description().attach(model)
            optimizer.set("lr_scale", 0.25, layers="0")
        else:
            groups[0]["rate_scale"] = 0.25
            optimizer = description().attach(groups)
        for step in range(3):
            optimizer.zero_grad()
            model(torch.full((1, 3), 0.5 + step)).square().sum().backward()
            optimizer.step()
        ends.append([p.detach() for p in model.parameters()])
    assert all(map(torch.equal, *ends))


def test_layer_lists_and_schedules_of_neons_own() -> None:
    schedule = WarmupCosine(2, 9, unit="steps")
    ends = []
    for attach in (True, False):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
        torch.manual_seed(0)
        for p in model.parameters():
            nn.init.normal_(p)
        made = MultiOptimizer(
            {"default": Adam(learning_rate=0.1, schedule=schedule), "1": Adam(lr_scale=0.5, learning_rate=0.1)}
        )
        attached: Any = made.attach(model) if attach else None
        for _ in range(4):
            model.zero_grad()
            model(torch.ones(1, 3)).sum().backward()
            attached.step() if attach else made.optimize([model], 0)
        ends.append([p.detach() for p in model.parameters()])
    torch.testing.assert_close(*ends, rtol=0, atol=1e-7)


def test_decay_that_is_decoupled_follows_the_scaled_rate() -> None:
    """lr·λ·w, and λ·w alone where the decay goes through the gradient."""
    for made, expected in (
        (AdamW(learning_rate=0.5, wdecay=0.1, lr_scale=0.5), 1 - 0.25 * 0.1),
        (Adam(lr_scale=0.5), 1),
    ):
        p = nn.Parameter(torch.ones(2, dtype=torch.float64))
        optimizer = made.attach([p])
        p.grad = torch.zeros_like(p)
        optimizer.step()
        assert p[0].item() == pytest.approx(expected, rel=1e-15)


def test_a_grad_scaler_and_a_skipped_step() -> None:
    model, other = network(), network()
    one = with_scales(AdamW(learning_rate=RATE).attach(model))
    two = with_scales(AdamW(learning_rate=RATE).attach(other))
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step in range(3):
        scaler.scale(loss_of(model, step)).backward()
        if step == 1:
            next(model.parameters()).grad.fill_(float("inf"))  # type: ignore[union-attr]
        scaler.step(one)
        scaler.update()
        one.zero_grad()
        if step != 1:
            loss_of(other, step).backward()
            two.step()
            two.zero_grad()
    torch.testing.assert_close([*model.parameters()], [*other.parameters()], rtol=0, atol=1e-6)


# -- what it leaves as it is -----------------------------------------------------------------------


@pytest.mark.parametrize("make", [*MAKE.values()], ids=[*MAKE])
def test_a_scale_of_one_is_the_same_program(make: Callable[..., Any]) -> None:
    optimizer = make(network()) if make is MAKE["AdamW"] else make(network().named_parameters())
    group = optimizer.param_groups[0]
    program = optimizer._rules.settings(group).program
    assert "rate_scale" not in program.numbers
    assert optimizer._rules.settings({**group, "rate_scale": 1}).program is program
    assert "rate_scale" in optimizer._rules.settings({**group, "rate_scale": 0.5}).program.numbers


@pytest.mark.parametrize("scheduled", [False, True])
def test_groups_that_another_library_scales_are_scaled_once(scheduled: bool) -> None:
    """Its schedulers multiply the rate of groups by their `lr_scale`; torch's classes know nothing of that."""
    ends = []
    for module in (neon.torch, torch.optim):
        p = nn.Parameter(torch.ones(3, dtype=torch.float64))
        optimizer = module.SGD([{"params": [p], "lr_scale": 0.5}], lr=0.1)
        for group in optimizer.param_groups if scheduled else ():
            group["lr"] = 0.1 * group["lr_scale"]
        p.grad = torch.ones_like(p)
        optimizer.step()
        ends.append(p.detach())
    assert torch.equal(*ends)


# -- checkpoints -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["AdamW", "torch's AdamW"])
def test_scales_are_saved_and_go_on(kind: str) -> None:
    def trained(model: nn.Module, optimizer: Any, steps: range) -> list[Tensor]:
        for step in steps:
            loss_of(model, step).backward()
            optimizer.step()
            optimizer.zero_grad()
        return [p.detach() for p in model.parameters()]

    model, other = network(), network()
    optimizer, loaded = with_scales(MAKE[kind](model.named_parameters())), MAKE[kind](other.named_parameters())
    trained(model, optimizer, range(2))
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    copied, twin = copy.deepcopy((model, optimizer))
    expected = trained(model, optimizer, range(2, 4))
    assert all(map(torch.equal, trained(other, loaded, range(2, 4)), expected))
    assert all(map(torch.equal, trained(copied, twin, range(2, 4)), expected))


def test_checkpoints_of_before_keep_the_scales_here() -> None:
    old = AdamW().attach(network()).state_dict()
    for group in old["param_groups"]:
        assert "rate_scale" not in group
        group["overrides"] = "{}"
    optimizer = AdamW(lr_scale=0.5).attach(network())
    optimizer.load_state_dict(old)
    assert optimizer.param_groups[0]["rate_scale"] == 0.5


@pytest.mark.parametrize("made", [1.0, 0.5, 0.25])
@pytest.mark.parametrize("saved", [1.0, 0.5])
def test_a_scale_of_everything_is_that_of_the_checkpoint(made: float, saved: float) -> None:
    there = AdamW().attach(network())
    there.set("lr_scale", saved)
    for here in (AdamW(lr_scale=made).attach(network()), AdamW().attach(network())):
        here.set("lr_scale", made)
        here.load_state_dict(copy.deepcopy(there.state_dict()))
        assert here.param_groups[0].get("rate_scale", 1.0) == saved


def test_torchs_classes_load_what_has_scales() -> None:
    model, other = network(), network()
    optimizer = with_scales(neon.torch.AdamW(model.named_parameters(), lr=RATE))
    loss_of(model, 0).backward()
    optimizer.step()
    loaded = torch.optim.AdamW(other.named_parameters())
    loaded.load_state_dict(optimizer.state_dict())
    loss_of(other, 0).backward()
    loaded.step()
    assert loaded.param_groups[0]["lr"] == RATE


# -- what is refused -------------------------------------------------------------------------------


class Signs(Optimizer):
    """A rule without a rate."""

    @staticmethod
    def rule(w: Any, g: Any, *, size: Any = 0.1) -> Any:
        return w - size * sign(g)


@pytest.mark.parametrize("value", [-0.5, float("inf"), float("nan"), "half", None, True])
def test_scales_are_finite_numbers(value: Any) -> None:
    optimizer = AdamW().attach(network())
    before = copy.deepcopy(optimizer.state_dict())
    for call in (
        lambda: AdamW(lr_scale=value),
        lambda: neon.torch.AdamW(network().parameters(), lr_scale=value),
        lambda: optimizer.set("lr_scale", value, layers="blocks.0"),
        lambda: optimizer.set("lr_scale", value),
        lambda: AdamW().attach([{"params": [*network().parameters()], "rate_scale": value}]),
    ):
        with pytest.raises((TypeError, ValueError), match=r"lr_scale must be a.* number"):
            call()
    assert str(optimizer.state_dict()) == str(before)


def test_a_rule_without_a_rate_refuses_it_by_name() -> None:
    with pytest.raises(ValueError, match="Signs has no rule with an lr for lr_scale to multiply"):
        Signs(lr_scale=0.5)
    with pytest.raises(ValueError, match=r"Signs \(default\) has no lr for rate_scale to multiply"):
        Signs().attach([{"params": [nn.Parameter(torch.ones(1))], "rate_scale": 0.5}])
    with pytest.raises(ValueError, match="No parameter group has a value 'lr_scale'"):
        Signs().attach(network()).set("lr_scale", 0.5, layers="head")
    mixed = MultiOptimizer({"default": AdamW(lr_scale=0.5), "head": Signs()}).attach(network())
    with pytest.raises(ValueError, match="belong to 'head', which has no value 'lr_scale'"):
        mixed.set("lr_scale", 0.5, layers="head")
    mixed.set("lr_scale", 0.25, layers="*")
    assert ["rate_scale" in group for group in mixed.param_groups] == [True, False]
    assert not mixed.unset("lr_scale", layers="*")


@pytest.mark.parametrize("name", ["lr_scale", "rate_scale"])
def test_the_name_is_not_for_rules_of_ones_own(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def rule(w, g, *, lr=0.1, {name}=1.0):\n    return w - lr * {name} * g", scope)
    own = type("Own", (Optimizer,), {"rule": staticmethod(scope["rule"])})
    with pytest.raises(TypeError, match=f"uses {name}, which neon keeps for itself"):
        own()


def test_it_is_in_the_description() -> None:
    assert "lr_scale=0.65" in repr(Adam(lr_scale=0.65))
    assert "scale" not in repr(Adam())
