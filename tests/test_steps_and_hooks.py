"""Closures, hooks of torch and steps that others replace: what surrounds a step, for every exported optimizer."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from exported_optimizers import assert_same, attached, every, everything, give, train
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import neon.optimizers
import neon.torch
from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")


# -- closures and hooks ----------------------------------------------------------------------------


@pytest.mark.parametrize("observed", [False, True])
@every
def test_a_closure_is_called_once_and_its_loss_is_given_back(name: str, observed: bool) -> None:
    (params, optimizer), (others, plain) = attached(name), attached(name)
    if observed:
        optimizer.register_step_pre_hook(lambda *_: None)
    modes = []

    def closure() -> torch.Tensor:
        modes.append(torch.is_grad_enabled())
        give(params, len(modes) - 1)
        return torch.tensor(float(len(modes)))

    with torch.no_grad():
        assert [optimizer.step(closure).item(), optimizer.step(closure=closure).item()] == [1, 2]
        assert not torch.is_grad_enabled()
    assert modes == [True, True]
    train(others, plain, range(2))
    assert_same(everything(optimizer), everything(plain))


@every
def test_every_hook_runs_once_with_torchs_arguments(name: str) -> None:
    """Once for a mapping too: it holds no inner optimizer whose own hooks would run as well."""
    params, optimizer = attached(name)
    give(params, 0)
    seen: list[Any] = []

    def hook(word: str) -> Callable[..., None]:
        return lambda *arguments: seen.append((word, arguments))

    handles = [
        register_optimizer_step_pre_hook(hook("global before")),
        register_optimizer_step_post_hook(hook("global after")),
        optimizer.register_step_pre_hook(hook("before")),
        optimizer.register_step_post_hook(hook("after")),
    ]
    try:
        optimizer.step()
    finally:
        for handle in handles:
            handle.remove()
    optimizer.step()
    given = (optimizer, (optimizer,), {})
    assert seen == [(word, given) for word in ("global before", "before", "after", "global after")]


class Stepping(neon.torch.Adam):
    """A class of a user's with a step of its own, which torch puts hooks around."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class SteppingTwice(Stepping):
    def step(self, closure: Any = None) -> Any:
        super().step()
        return super().step(closure)


@pytest.mark.parametrize("kinds", [[Stepping], [SteppingTwice], [Stepping, SteppingTwice], [neon.torch.Adam, Stepping]])
def test_hooks_run_once_around_a_step_that_calls_that_of_its_base(kinds: list[Any]) -> None:
    for kind in kinds:
        weight = nn.Parameter(torch.ones(2))
        optimizer, seen = kind([weight]), []
        optimizer.register_step_pre_hook(lambda *_, seen=seen: seen.append("before"))
        optimizer.register_step_post_hook(lambda *_, seen=seen: seen.append("after"))
        weight.grad = torch.ones(2)
        for _ in range(2):
            assert optimizer.step(lambda: 5) == 5
        assert seen == ["before", "after"] * 2
        assert optimizer.state[weight]["step"] == (4 if kind is SteppingTwice else 2)


def test_hooks_run_around_the_step_of_a_base_that_is_called_directly() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer, seen = Stepping([weight]), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    neon.torch.Adam.step(optimizer)
    assert seen == ["before"]


def test_a_step_within_a_hook_of_another_optimizer_has_its_own_hooks() -> None:
    one, other = (Stepping([nn.Parameter(torch.ones(2))]) for _ in range(2))
    seen: list[str] = []
    one.register_step_pre_hook(lambda *_: other.step())
    other.register_step_pre_hook(lambda *_: seen.append("other"))
    one.step()
    assert seen == ["other"]


def test_a_hook_may_change_the_arguments() -> None:
    _, optimizer = attached("Adam")
    losses = []

    def before(opt: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "closure": lambda: losses.append(1) or 7}

    optimizer.register_step_pre_hook(before)
    assert optimizer.step() == 7
    assert losses == [1]
    optimizer.register_step_pre_hook(lambda *_: "nothing that torch takes")
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        optimizer.step()
    assert losses == [1]


def test_hooks_of_state_dicts_run() -> None:
    _, optimizer = attached("Adam")
    seen: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda opt: seen.append("saving"))
    optimizer.register_state_dict_post_hook(lambda opt, saved: {**saved, "more": 1})
    optimizer.register_load_state_dict_pre_hook(lambda opt, saved: seen.append(f"loading {saved.pop('more')}"))
    optimizer.register_load_state_dict_post_hook(lambda opt: seen.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["saving", "loading 1", "loaded"]


@every
def test_the_profiler_shows_step_and_zero_grad(name: str) -> None:
    params, optimizer = attached(name)
    give(params, 0)
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
        optimizer.zero_grad()
    names = [event.name for event in profile.function_events]  # type: ignore[union-attr]
    for method in ("step", "zero_grad"):
        assert names.count(f"Optimizer.{method}#AttachedOptimizer.{method}") == 1


@pytest.mark.parametrize("history", [False, True], ids=["plain", "with a history"])
@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad(to_none: bool, history: bool) -> None:
    params, optimizer = attached("MultiOptimizer")
    give(params, 0)
    params[1].grad = None
    if history:
        [params[0].grad] = torch.autograd.grad((params[0] ** 3).sum(), params[0], create_graph=True)
    grads = [p.grad for p in params]
    optimizer.zero_grad(set_to_none=to_none)
    assert (
        [p.grad for p in params] == [None] * 3
        if to_none
        else all(p.grad is g for p, g in zip(params, grads, strict=True))
    )
    if not to_none:
        assert not any(g.any() or g.requires_grad for g in grads if g is not None)


# -- a step that others replace --------------------------------------------------------------------


def swapped_and_back(optimizer: Any, called: list[str]) -> None:
    """As accelerate does around the step of a gradient scaler."""
    original = optimizer.step

    def patched(*args: Any, **kwargs: Any) -> Any:
        called.append("patched")
        return original(*args, **kwargs)

    optimizer.step = patched
    optimizer.step()
    optimizer.step = original


def wrapped_by_a_scheduler(optimizer: Any, called: list[str]) -> None:
    torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    optimizer.step()
    assert optimizer._opt_called
    called.append("patched")


def patched_on_the_class(optimizer: Any, called: list[str]) -> None:
    inner = AttachedOptimizer.step

    def patched(self: Any, closure: Any = None) -> Any:
        called.append("patched")
        return inner(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttachedOptimizer, "step", patched)
        optimizer.step()


def subclassed(optimizer: Any, called: list[str]) -> None:
    """As Lightning does: the class of a wrapper is derived from the optimizer's."""

    class Wrapped(AttachedOptimizer):
        def __init__(self) -> None:
            self.__dict__ = {**optimizer.__dict__}

        def step(self, closure: Any = None) -> Any:
            called.append("patched")
            return optimizer.step(closure)

    wrapper = Wrapped()
    assert isinstance(wrapper, torch.optim.Optimizer)
    wrapper.step()


PATCHES = [swapped_and_back, wrapped_by_a_scheduler, patched_on_the_class, subclassed]


@pytest.mark.parametrize("patch", PATCHES)
@every
def test_a_step_that_others_replace_updates_once(name: str, patch: Any) -> None:
    (params, optimizer), (others, plain) = attached(name), attached(name)
    called: list[str] = []
    give(params, 0)
    patch(optimizer, called)
    assert called == ["patched"]
    give(others, 0)
    plain.step()
    assert_same(everything(optimizer), everything(plain))
    train(params, optimizer, range(1, 3))
    train(others, plain, range(1, 3))
    assert_same(everything(optimizer), everything(plain))
    copy.deepcopy(optimizer)
    pickle.dumps(optimizer)
