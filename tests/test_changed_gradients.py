"""Norms in the backward pass are never those of other gradients: whatever has changed since is summed in the step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import torch
from optimizer_contents import assert_same
from summed_early import BOUND, backward, clipped, hooks, network, train, twins, weight
from torch import distributed, nn

from neon.engine.native import threads

pytestmark = pytest.mark.usefixtures("one_thread", "hooks_for_small_tensors")


def replaced(p: Any, optimizer: Any) -> None:
    """Another object over the same memory, of the same version, with other values."""
    grad = p.grad.data.mul_(2)
    p.grad = grad.data


def replaced_beside(p: Any, optimizer: Any) -> None:
    """The same, while the one that was summed is still there."""
    optimizer.kept = p.grad
    replaced(p, optimizer)


def replaced_by_one_of_its_number(p: Any, optimizer: Any) -> None:
    """The object is freed, and its place in memory taken by another, over the same gradient."""
    number, values = id(p.grad), p.grad.data
    values.mul_(2)
    p.grad, others = None, []
    while id(other := values.data) != number:
        others.append(other)
        assert len(others) < 1000
    p.grad = other


def moved(p: Any, optimizer: Any) -> None:
    p.grad.data = p.grad * 2


def freed(p: Any, optimizer: Any) -> None:
    p.grad = None


def restructured(p: Any, optimizer: Any) -> None:
    optimizer.freeze("0.0")


def no_grad(change: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def changed(p: Any, optimizer: Any) -> None:
        with torch.no_grad():
            change(p.grad)

    return changed


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "replaced": replaced,
    "replaced beside": replaced_beside,
    "replaced by one of its number": replaced_by_one_of_its_number,
    "moved": moved,
    "freed": freed,
    "restructured": restructured,
    "scaled": no_grad(lambda g: g.mul_(2)),
    "written to through a view": no_grad(lambda g: g[1:].fill_(3.0)),
    "clipped by value": lambda p, o: nn.utils.clip_grad_value_([p], 1e-3),
    "clipped by norm": lambda p, o: nn.utils.clip_grad_norm_([p], 1e-3),
    "foreach": no_grad(lambda g: torch._foreach_mul_([g], 3.0)),
    "accumulated by hand": lambda p, o: p.grad.add_(torch.ones_like(p)),
    "set": no_grad(lambda g: g.set_(torch.full_like(g, 0.5))),
    "transposed": lambda p, o: setattr(p, "grad", p.grad.t()),
    "in inference mode": lambda p, o: torch.inference_mode()(lambda: p.grad.mul_(2))(),
    "a number": lambda p, o: o.param_groups[0].update(lr=0.5, gradient_clip_norm=BOUND / 2),
    "another form": lambda p, o: o.param_groups[0].update(gradient_clip_value=1e-4),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_has_changed_since_is_summed_anew(what: str) -> None:
    ends = []
    for model, optimizer in twins():
        backward(model, 3)
        CHANGES[what](weight(model), optimizer)
        optimizer.step()
        ends.append(optimizer)
    assert_same(*ends)


@pytest.mark.parametrize("unscale", [False, True])
def test_a_scaler_divides_gradients_and_does_not_tell(unscale: bool) -> None:
    ends = []
    for model, optimizer in twins():
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for step in range(3, 8):
            first = weight(model)
            x = torch.randn(8, first.shape[1], generator=torch.Generator().manual_seed(step))
            scaler.scale((model(x) - x.flip(1)).square().sum()).backward()
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        ends.append(optimizer)
    assert_same(*ends)


def test_processes_average_gradients_and_do_not_tell() -> None:
    (model, optimizer), (same, other) = twins()
    assert hooks(model) == 3
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        for net, each in ((model, optimizer), (same, other)):
            backward(net, 3)
            weight(net).grad.data.mul_(2)  # as all_reduce writes
            each.step()
        assert hooks(model) == 0
        assert_same(optimizer, other)
        fresh = network()
        optimizer = clipped().attach(fresh, norms_in_backward=True)
        train(fresh, optimizer, range(1))
        assert hooks(fresh) == 0
    finally:
        distributed.destroy_process_group()


def test_a_change_that_nobody_was_told_of_is_found_and_ends_it() -> None:
    """In the next step that is checked, which then is right, and so are all that follow."""
    (model, optimizer), (same, other) = twins()
    for net, each in ((model, optimizer), (same, other)):
        train(net, each, range(3, 4))
        backward(net, 4)
        weight(net).grad.data.clamp_(-1e-3, 1e-3)
    with pytest.warns(RuntimeWarning, match=r"gradient of parameter '0\.0\.weight' was changed after it had arrived"):
        optimizer.step()
    other.step()
    assert_same(optimizer, other)
    for step in range(5, 9):
        for net, each in ((model, optimizer), (same, other)):
            backward(net, step)
            weight(net).grad.data.clamp_(-1e-3, 1e-3)
            each.step()
    assert_same(optimizer, other)


def spread(grad: torch.Tensor) -> torch.Tensor:
    wide = torch.full((4, 8), 7.0)
    wide[:, ::2] = grad
    return wide[:, ::2]


def put(change: list[Callable[[Any], Any]], p: Any) -> None:
    for each in change:
        p.grad = each(p.grad)


UNREADABLE: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gaps": spread,
    "another type": lambda g: g.bfloat16(),
    "of inference": lambda g: torch.inference_mode()(g.clone)(),
    "a class": lambda g: nn.Parameter(g.clone(), requires_grad=False),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_gradients_that_no_kernel_could_read_where_they_are(what: str, read: list[int]) -> None:
    """A hook of the user's comes first, and puts them there; of three weights two are summed."""
    ends = []
    for norms_in_backward in (True, False):
        model = network()
        weight(model).grad_dtype = None
        change: list[Callable[[Any], Any]] = []
        weight(model).register_post_accumulate_grad_hook(partial(put, change))
        optimizer = clipped().attach(model, norms_in_backward=norms_in_backward)
        train(model, optimizer, range(3))
        change.append(UNREADABLE[what])
        read.clear()
        backward(model, 3)
        assert read == ([16, 16] if norms_in_backward else [])
        optimizer.step()
        ends.append(optimizer)
    assert_same(*ends)


def test_an_interrupt_within_a_sum(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is summed in part is forgotten, also of the gradient that was summed before."""
    ends = []
    for model, optimizer in twins():
        backward(model, 3)
        first, run = weight(model), threads.run
        before, first.grad = first.grad, None

        def interrupted(*given: Any, run: Any = run) -> None:
            run(*given)
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, suppress(KeyboardInterrupt):
            patched.setattr(threads, "run", interrupted)
            (first * 3).sum().backward()
        first.grad = before
        optimizer.step()
        ends.append(optimizer)
    assert_same(*ends)
