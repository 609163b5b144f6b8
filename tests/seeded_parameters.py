"""Parameters and gradients of attached optimizers, the same in every run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from neon.optimizers import (
    GradientDescentMomentum,
)


def sgd(rate: float, momentum: float = 0.0, **options: Any) -> GradientDescentMomentum:
    return GradientDescentMomentum(rate, momentum, **options)


def parameter(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype))


def give(params: Any, step: int) -> None:
    """The gradients of a step, the same in every run."""
    for number, p in enumerate(params):
        generator = torch.Generator().manual_seed(1000 * step + number)
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def zeros(*shape: int, **kind: Any) -> nn.Parameter:
    p = nn.Parameter(torch.zeros(shape, **kind))
    p.grad = torch.ones_like(p)
    return p
