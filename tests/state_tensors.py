"""Tensors to optimize, all tensors of their states, and whether they are the same to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from neon.engine import use_backend
from neon.optimizers import Optimizer


def new(*sizes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=generator).to(dtype).requires_grad_() for n in sizes]


def tensors_of(state: Any) -> Iterator[Tensor]:
    """All tensors of a parameter's state, those of the dict of scales too."""
    for value in state.values():
        yield from tensors_of(value) if isinstance(value, dict) else [value]


def assert_same(a: list[Tensor], b: list[Tensor], *, numbers: float = 0.0) -> None:
    """The same bits; float64 tensors of one number may differ by so many units in the last place."""
    for x, y in zip(a, b, strict=True):
        assert x.dtype == y.dtype
        if numbers and x.dim() == 0 and x.dtype == torch.float64:
            assert ulps(x, y) <= numbers
            continue
        if x.dtype == torch.bfloat16:  # it may be the low bits of a weight, which as numbers may be NaN
            x, y = x.view(torch.int16), y.view(torch.int16)
        assert torch.equal(x, y), f"{(x != y).sum().item()} of {x.numel()} elements differ"


def ulps(a: Tensor, b: Tensor) -> float:
    """How far two tensors are apart at most, in units of the last place of the second."""
    a, b = a.flatten(), b.flatten()
    apart = ~((a == b) | (a.isnan() & b.isnan()))
    unit = torch.nextafter(b.abs(), torch.tensor(float("inf"), dtype=b.dtype)) - b.abs()
    return float(((a - b).abs() / unit)[apart].max()) if apart.any() else 0.0


def trained(backend: str, params: list[Tensor], optimizer: Any, steps: int = 2, seed: int = 1) -> list[Tensor]:
    """Weights and states after some steps."""
    generator = torch.Generator().manual_seed(seed)
    with use_backend(backend):
        attached = optimizer.attach(params) if isinstance(optimizer, Optimizer) else optimizer(params)
        for _ in range(steps):
            for param in params:
                param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float32).to(param.dtype)
            attached.step()
    return [*(p.detach() for p in params), *(t for p in params for t in tensors_of(attached.state[p]))]
