"""Two models that are trained alike, one with norms taken in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from constructors import without_vectors
from torch import nn

from neon.optimizers import Adam, Optimizer

BOUND = 1e-2  # below every norm here: a wrong one shows in the weights


def network(width: int = 4, rule: str = "") -> nn.Sequential:
    torch.manual_seed(1)
    layers = (nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(3))
    return without_vectors(rule, nn.Sequential(*layers))


def backward(model: Any, step: int) -> None:
    first = next(model.parameters())
    x = torch.randn(8, first.shape[1], generator=torch.Generator().manual_seed(step)).to(first.dtype)
    (model(x) - x.flip(1)).square().sum().backward()


def train(model: Any, optimizer: Any, steps: range) -> None:
    for step in steps:
        backward(model, step)
        optimizer.step()
        optimizer.zero_grad()


def loss_of(model: nn.Module, step: int) -> None:
    model.zero_grad()
    backward(model, step)


def clipped(**options: Any) -> Optimizer:
    return Adam(gradient_clip_norm=BOUND, **options)


def twins(make: Callable[[], Optimizer] = clipped, width: int = 4, **options: Any) -> list[tuple[nn.Module, Any]]:
    """With and without; in the next step what was summed is believed, and not checked."""
    made = []
    for norms_in_backward in (True, False):
        model = network(width)
        optimizer = make().attach(model, norms_in_backward=norms_in_backward, **options)
        train(model, optimizer, range(3))
        made.append((model, optimizer))
    return made


def hooks(model: nn.Module) -> int:
    return sum(len(p._post_accumulate_grad_hooks or ()) for p in model.parameters())  # type: ignore[attr-defined]


def weight(model: nn.Module) -> Any:
    return next(model.parameters())
