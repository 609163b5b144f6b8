"""Adafactor against a reference of its own and against torch's class, in every shape, on every backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import neon.torch
from neon.engine.backends import use_backend
from neon.optimizers import Adafactor, Lion, MultiOptimizer

SHAPES: list[tuple[int, ...]] = [(), (7,), (1,), (3, 4), (1, 1), (70, 130), (5, 1), (1, 200), (3, 4, 5), (6, 5, 3, 3)]


def reference(
    w: Any, grads: Sequence[Any], *, lr: float, tau: float, eps: tuple[float, float], d: float, decay: float
) -> Any:
    """torch's equations by hand, in float64."""
    row, col, v = 0.0, 0.0, 0.0
    for t, g in enumerate(grads, 1):
        share = t**tau
        alpha = max(eps[1], np.sqrt(np.mean(w * w))) * min(lr, 1 / np.sqrt(t))
        if w.ndim > 1:
            row = row + share * (np.mean(g * g, -1, keepdims=True) - row)
            col = col + share * (np.mean(g * g, -2, keepdims=True) - col)
            found = row * col / np.maximum(np.mean(row, -2, keepdims=True), eps[0])
        else:
            found = v = v + share * (g * g - v)
        u = g / np.sqrt(np.maximum(found, eps[0] ** 2))
        w = w - lr * decay * w - alpha / max(1.0, np.sqrt(np.mean(u * u)) / d) * u
    return w


def tensors(shape: tuple[int, ...], dtype: torch.dtype, steps: int = 20) -> tuple[Tensor, list[Tensor]]:
    """A weight and its gradients."""
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(steps + 1)]
    return made[0].to(dtype), [grad.to(dtype) for grad in made[1:]]


def stepped(optimizer: Any, w: Tensor, grads: Sequence[Tensor]) -> None:
    for grad in grads:
        w.grad = grad.clone(memory_format=torch.preserve_format)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_twenty_steps_are_those_of_the_reference(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    w, grads = tensors(shape, dtype)
    numbers = {"lr": 0.05, "tau": -0.7, "eps": (1e-4, 1e-2), "d": 1.1, "decay": 0.1}
    expected = reference(w.double().numpy(), [grad.double().numpy() for grad in grads], **numbers)
    param = torch.nn.Parameter(w.clone())
    stepped(Adafactor(0.05, -0.7, 1e-4, 1e-2, 1.1, wdecay=0.1).attach([param]), param, grads)
    error = np.abs(param.detach().double().numpy() - expected).max()
    assert error <= (1e-14 if dtype == torch.float64 else 1.2e-6) * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_twenty_steps_are_torchs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    w, grads = tensors(shape, dtype)
    ours, theirs = (torch.nn.Parameter(w.clone()) for _ in range(2))
    options: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.1}
    mine, its = neon.torch.Adafactor([ours], **options), torch.optim.Adafactor([theirs], **options)
    stepped(mine, ours, grads)
    stepped(its, theirs, grads)
    bound = 1e-14 if dtype == torch.float64 else 1.2e-6
    torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound)
    assert {*mine.state[ours]} == {*its.state[theirs]}
    for name, state in its.state[theirs].items():
        assert mine.state[ours][name].dtype == state.dtype
        torch.testing.assert_close(mine.state[ours][name], state, rtol=bound, atol=bound)


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_checkpoint_goes_on_both_ways_in_mid_run(ours_first: bool) -> None:
    shapes = [(4, 3), (5,), (2, 3, 3, 3)]
    made = [tensors(shape, torch.float64) for shape in shapes]
    classes = [neon.torch.Adafactor, torch.optim.Adafactor]
    first, second = classes if ours_first else classes[::-1]
    straight = [torch.nn.Parameter(w.clone()) for w, _ in made]
    whole = torch.optim.Adafactor(straight, lr=0.03)
    halves = [torch.nn.Parameter(w.clone()) for w, _ in made]
    one = first(halves, lr=0.03)
    for step in range(20):
        for params, optimizer in ((straight, whole), (halves, one)):
            for param, (_, grads) in zip(params, made, strict=True):
                param.grad = grads[step].clone()
            optimizer.step()
        if step == 9:
            saved = one.state_dict()
            one = second(halves, lr=1.0)
            one.load_state_dict(saved)
    for a, b in zip(straight, halves, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
