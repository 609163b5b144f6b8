"""Muon in a run: numbers that change, resumed runs, the backward pass, scalers; transforms and options around it."""

from __future__ import annotations

import copy
import inspect
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from matrix_steps import all_bits, backward, give, gradient, muon, network, run, weights
from stepped_parameters import bits
from torch import Tensor, nn

from neon.engine import use_backend
from neon.engine.calls import stacks
from neon.optimizers import (
    AdamW,
    Cautious,
    Centralized,
    Lookahead,
    MultiOptimizer,
    Muon,
    Optimizer,
    ScheduleFree,
    WarmupCosine,
)
from neon.optimizers.muon import muon as rule
from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")


# -- in mid-run ------------------------------------------------------------------------------------


CHANGES: dict[str, dict[str, Any]] = {
    "steps": {"ns_steps": 2},
    "steps, none": {"ns_steps": 0},
    "nesterov": {"nesterov": False},
    "scale": {"adjust_lr_fn": "match_rms_adamw"},
    "coefficients": {"ns_coefficients": (2.0, -1.5, 0.5)},
    "schedule": {"ns_coefficients": "polar_express_dion"},
    "longer": {"ns_coefficients": (2.0, -1.5, 0.5, 3.0, -3.2, 1.2)},
    "epsilon": {"eps": 10.0},
    "momentum": {"momentum": 0.0},
    "lr": {"lr": 0.5},
    "lr in a tensor": {"lr": torch.tensor(0.5)},
    "weight decay": {"weight_decay": 0.0},
}


@pytest.mark.parametrize("change", CHANGES)
def test_numbers_that_change_in_mid_run(change: str) -> None:
    """As an optimizer that has had the new numbers from the start, and the old one's momentum."""
    params = weights()
    opt = muon().attach(params)
    run(params, opt, range(2))
    others = copy.deepcopy(params)
    fresh = muon().attach(others)
    fresh.param_groups[0].update(copy.deepcopy(CHANGES[change]))
    saved = opt.state_dict()
    saved["param_groups"] = fresh.state_dict()["param_groups"]
    fresh.load_state_dict(saved)
    opt.param_groups[0].update(CHANGES[change])
    before = [p.detach().clone() for p in params]
    assert run(params, opt, range(2, 4)) == run(others, fresh, range(2, 4))
    assert any(not torch.equal(p, old) for p, old in zip(params, before, strict=True))


def test_a_rate_in_a_tensor_is_the_number() -> None:
    one, other = weights(), weights()
    number = muon(learning_rate=0.25).attach(one)
    tensor = muon().attach(other)
    tensor.param_groups[0]["lr"] = torch.tensor(0.25)
    assert run(one, number, range(3)) == run(other, tensor, range(3))


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clip by norm": {"gradient_clip_norm": 1.0},
    "momentum in 8 bits": {"state_dtype": "int8"},
    "momentum in bfloat16": {"state_dtype": "bfloat16"},
    "average": {"weight_average": 0.9},
}
OF_16_BITS: dict[str, dict[str, Any]] = {
    "rounded at random": {"stochastic_round": True},
    "split": {"master": "split"},
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("option", "dtype"),
    [
        *(
            (option, dtype)
            for option in OPTIONS
            for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64)
        ),
        *((option, torch.bfloat16) for option in OF_16_BITS),
        ("rounded at random", torch.float16),
    ],
)
def test_a_run_that_is_resumed(option: str, dtype: torch.dtype) -> None:
    given = OPTIONS.get(option) or OF_16_BITS.get(option, {})
    params = weights(dtype=dtype)
    opt = muon(**given).attach(params)
    run(params, opt, range(3))
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    others = copy.deepcopy(params)
    again = muon(**given).attach(others)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert run(others, again, range(3, 6)) == run(params, opt, range(3, 6))


# -- the backward pass, scalers, surroundings ------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{}, {"gradient_clip_value": 0.01}, {"state_dtype": "int8"}, {"weight_average": 0.9}]
)
@pytest.mark.usefixtures("small")
def test_updates_within_the_backward_pass(options: dict[str, Any]) -> None:
    model, other = network(), network()
    within, after = muon(**options).attach(model, in_backward=True), muon(**options).attach(other)
    for step in range(4):
        backward(model, step)
        assert all(p.grad is None for p in model.parameters())
        within.step()
        backward(other, step)
        after.step()
        after.zero_grad()
    assert all_bits(within, [*model.parameters()]) == all_bits(after, [*other.parameters()])


def test_updates_within_two_backward_passes_at_once() -> None:
    models = [network() for _ in range(5)]
    optimizers = [muon().attach(model, in_backward=True) for model in models]

    def trained(pair: tuple[nn.Module, AttachedOptimizer]) -> list[Any]:
        model, opt = pair
        for step in range(20):
            backward(model, step)
            opt.step()
        return all_bits(opt, [*model.parameters()])

    with ThreadPoolExecutor(1) as pool:  # a thread as the others are: in the main one a backward pass may sum otherwise
        expected = pool.submit(trained, (models[0], optimizers[0])).result()
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(trained, zip(models[1:], optimizers[1:], strict=True))]
    assert found == [expected] * 4


def test_a_scaler_divides_and_leaves_out() -> None:
    model, other = network(), network()
    scaled, plain = muon(gradient_clip_norm=0.1).attach(model), muon(gradient_clip_norm=0.1).attach(other)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        if step == 2:  # a step that is left out
            kept = all_bits(scaled, [*model.parameters()])
            scaler.scale(model(torch.full((1, 12), torch.inf)).sum()).backward()
            scaler.step(scaled)
            assert all_bits(scaled, [*model.parameters()]) == kept
            assert scaled.skipped_steps == 1
            scaler.update(1024.0)
            scaled.zero_grad()
        x = torch.randn(8, 12, generator=torch.Generator().manual_seed(step))
        scaler.scale(model(x).square().mean()).backward()
        scaler.step(scaled)
        scaler.update()
        scaled.zero_grad()
        backward(other, step)
        plain.step()
        plain.zero_grad()
    assert all_bits(scaled, [*model.parameters()]) == all_bits(plain, [*other.parameters()])


def test_a_gradient_that_is_not_finite_leaves_the_step_out() -> None:
    model = network()
    opt = MultiOptimizer({"default": muon(), "4": AdamW()}).attach(model, skip_nonfinite=True)
    backward(model, 0)
    opt.step()
    kept = all_bits(opt, [*model.parameters()])
    backward(model, 1)
    model.get_parameter("2.weight").grad[3, 3] = torch.nan  # type: ignore[index]
    opt.step()
    assert all_bits(opt, [*model.parameters()]) == kept
    assert (opt.skipped_steps, opt.last_nonfinite) == (1, "2.weight")


SURROUNDINGS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "another device": lambda: torch.device("meta"),
}


@pytest.mark.parametrize("when", [{0}, {1}, {0, 1, 2}], ids=["first", "then", "always"])
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_what_is_around_a_step_does_not_matter(surroundings: str, when: set[int]) -> None:
    params, others = weights(), weights()
    opt, plain = muon().attach(params), muon().attach(others)
    for step in range(3):
        give(params, step)
        with SURROUNDINGS[surroundings]() if step in when else nullcontext():
            opt.step()
    run(others, plain, range(3))
    assert all_bits(opt, params) == all_bits(plain, others)


# -- transforms and options ------------------------------------------------------------------------


def by_hand(
    params: Sequence[Tensor],
    steps: int,
    changed: Callable[[int, Tensor, Tensor, Tensor], Tensor] = lambda place, w, g, new: new,
    seen: Callable[[int, Tensor, Tensor], Tensor] = lambda place, w, g: g,
    **numbers: Any,
) -> list[Tensor]:
    """Weights after steps of the rule itself, called with tensors: `seen` makes its gradient, `changed` the weight."""
    group = muon(**numbers).group()
    given = {name: group[name] for name in inspect.signature(rule).parameters if name in group}
    weights, buffers = [p.detach().clone() for p in params], [torch.zeros_like(p) for p in params]
    for step in range(steps):
        for place, w in enumerate(weights):
            g = gradient(place, step, w)
            new, buffers[place] = rule(w, seen(place, w, g), buffers[place], **given)
            weights[place] = changed(place, w, g, new)
    return weights


def cautiously(_: int, w: Tensor, g: Tensor, new: Tensor) -> Tensor:
    change = new - w
    mask = (change * g < 0).to(w)
    return w + change * mask / max(mask.mean().item(), 1e-3) if w.numel() else w


def centralized(_: int, w: Tensor, g: Tensor) -> Tensor:
    return g - g.flatten(1).mean(1).view(-1, *[1] * (w.dim() - 1)) if w.numel() else g


AROUND: dict[str, tuple[Callable[[Optimizer], Optimizer], dict[str, Any]]] = {
    "Cautious": (Cautious, {"changed": cautiously}),
    "Centralized": (Centralized, {"seen": centralized}),
    "both": (lambda inner: Cautious(Centralized(inner)), {"changed": cautiously, "seen": centralized}),
    "none": (lambda inner: inner, {}),
}


@pytest.mark.parametrize("bucket", [1 << 26, 1])
@pytest.mark.parametrize("around", AROUND)
def test_transforms_around(around: str, bucket: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of each tensor over what matrices have become, too."""
    monkeypatch.setattr(stacks, "BUCKET", bucket)
    make, hand = AROUND[around]
    params = weights(dtype=torch.float64)
    expected = by_hand(params, 4, wdecay=0.0, **hand)
    with use_backend("eager"):
        others = [nn.Parameter(p.detach().clone()) for p in params]
        eager = run(others, make(muon(wdecay=0.0)).attach(others), range(4))
    assert run(params, make(muon(wdecay=0.0)).attach(params), range(4)) == eager
    for p, wanted in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), wanted, rtol=0, atol=1e-12)


def test_lookahead_around() -> None:
    params = weights()
    twins = [nn.Parameter(p.detach().clone()) for p in params]
    slow = [p.detach().clone() for p in params]
    opt, plain = Lookahead(muon(), k=2, alpha=0.5).attach(params), muon().attach(twins)
    for step in range(4):
        run(params, opt, range(step, step + 1))
        run(twins, plain, range(step, step + 1))
        for p, s in zip(twins, slow, strict=True):
            if step % 2:
                s.add_(0.5 * (p.detach() - s))
                p.data.copy_(s)
    for p, q in zip(params, twins, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


def test_schedule_free_has_a_momentum_of_its_own() -> None:
    with pytest.raises(TypeError, match="ScheduleFree and Muon, which it is around, both have the number momentum"):
        ScheduleFree(Muon())


DECAYS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]] = {
    # What the rule sees for a gradient, and what of the weight is subtracted, without lr·λ.
    "coupled": (lambda w, g: g + 0.3 * w, lambda w, change: 0 * w),
    "decoupled": (lambda w, g: g, lambda w, change: w),
    "relative": (lambda w, g: g, lambda w, change: w / 0.02),
    "corrected": (lambda w, g: g, lambda w, change: w),
    "cautious": (lambda w, g: g, lambda w, change: w * (change * w <= 0)),
}


@pytest.mark.parametrize("form", DECAYS)
def test_forms_of_weight_decay(form: str) -> None:
    sees, decays = DECAYS[form]
    params = weights(dtype=torch.float64)
    expected = by_hand(
        params,
        4,
        changed=lambda _, w, g, new: new - 0.02 * 0.3 * decays(w, new - w),
        seen=lambda _, w, g: sees(w, g),
        wdecay=0.0,
    )
    run(params, muon(wdecay=0.3, decay_form=form).attach(params), range(4))
    for p, wanted in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach(), wanted, rtol=0, atol=1e-12)


def clipped_by_norm(params: Sequence[Any]) -> None:
    norm = sum(p.grad.square().sum() for p in params if p.grad is not None) ** 0.5
    for p in params:
        p.grad = p.grad * min(1.0, 3.0 / norm)


def clipped_by_value(params: Sequence[Tensor]) -> None:
    torch.nn.utils.clip_grad_value_(params, 0.25)


def negated(params: Sequence[Any]) -> None:
    for p in params:
        p.grad = -p.grad


BEFORE: dict[str, tuple[dict[str, Any], Callable[[Sequence[Tensor]], None]]] = {
    "clip by norm": ({"gradient_clip_norm": 3.0}, clipped_by_norm),
    "clip by value": ({"gradient_clip_value": 0.25}, clipped_by_value),
    "maximize": ({"maximize": True}, negated),
}


@pytest.mark.parametrize("option", BEFORE)
def test_what_is_made_of_gradients_first(option: str) -> None:
    options, make = BEFORE[option]
    params, others = weights(dtype=torch.float64), weights(dtype=torch.float64)
    opt, plain = muon(**options).attach(params), muon().attach(others)
    for step in range(4):
        run(params, opt, range(step, step + 1))
        give(others, step)
        make(others)
        plain.step()
    for p, q in zip(params, others, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)


def test_rates_by_layer_by_schedule_and_weights_that_are_clipped() -> None:
    params, others = weights(), weights()
    schedule = WarmupCosine(2, 6, unit="steps")
    opt = muon(schedule=schedule, lr_scale=0.5, param_clip_value=1.0).attach(params)
    plain = muon(param_clip_value=1.0).attach(others)
    for step in range(4):
        run(params, opt, range(step, step + 1))
        plain.param_groups[0]["lr"] = 0.5 * opt.param_groups[0]["lr"]
        run(others, plain, range(step, step + 1))
    assert [bits(p.detach()) for p in params] == [bits(p.detach()) for p in others]
    assert all((p.abs() <= 1).all() for p in params)


def test_the_norm_of_the_step_before() -> None:
    model, other = network().double(), network().double()
    opt = muon().attach(model, in_backward=True, gradient_clip_previous_norm=0.05)
    plain, previous = muon().attach(other), None
    for step in range(4):
        backward(model, step)
        opt.step()
        backward(other, step)
        params: list[Any] = [*other.parameters()]
        norms = [p.grad.norm().item() for p in params]
        for p, own in zip(params, norms, strict=True):
            p.grad *= min(1.0, 0.05 / (own if previous is None else previous))
        previous = sum(norm**2 for norm in norms) ** 0.5
        plain.step()
        plain.zero_grad()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-12)
