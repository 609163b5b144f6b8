"""Optimizers that take steady steps, and what tests do with them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neon.attached.attached_optimizer import AttachedOptimizer
from neon.stepping.steady_steps import SteadySteps

SHAPES = ((7, 5), (300,), (), (4, 3, 2, 2), (90, 40))
Parameters = list[nn.Parameter]


def parameters(dtype: torch.dtype = torch.float32) -> Parameters:
    generator = torch.Generator().manual_seed(0)
    made = [nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    made[3].data = made[3].data.to(memory_format=torch.channels_last)
    return made


def give(params: list[Any], number: int) -> None:
    """New gradients, as a backward pass makes them."""
    generator = torch.Generator().manual_seed(number)
    for param in params:
        grad = torch.randn(param.shape, generator=generator).to(param.dtype)
        param.grad = grad.to(memory_format=torch.channels_last) if param.dim() == 4 else grad


def train(params: list[Any], optimizer: AttachedOptimizer, steps: int) -> None:
    """So many steps, with new gradients each."""
    for number in range(steps):
        give(params, number)
        optimizer.step()


def taken(optimizer: AttachedOptimizer) -> int:
    """How many steady steps there have been."""
    made = optimizer._stepper.steady._made
    return 0 if made is None else made.taken


def contents(params: list[Any], optimizer: AttachedOptimizer) -> list[Tensor]:
    states = [optimizer.state.get(param, {}) for param in params]
    kept = [value for state in states for value in state.values() if isinstance(value, Tensor)]
    return [tensor.detach().clone().reshape(-1).view(torch.uint8) for tensor in (*params, *kept)]  # its bits


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    """The same bits, tensor by tensor."""
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


def without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no optimizer take steady steps from now on."""
    monkeypatch.setattr(SteadySteps, "resume", lambda *given: None)
