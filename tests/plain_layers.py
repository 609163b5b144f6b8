"""The least that a layer can be, and numbers for it."""

from __future__ import annotations

from typing import Any

import torch


class Plain:
    """The least that a layer can be: one parameter, no torch module."""

    def __init__(self, values: Any, gradient: Any, dtype: torch.dtype = torch.float64) -> None:
        self.w = torch.as_tensor(values, dtype=dtype)
        self.g = None if gradient is None else torch.as_tensor(gradient, dtype=dtype)
        self.states: list[torch.Tensor] = []

    def get_params(self) -> Any:
        return (self.w, self.g), self.states


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(seed: int = 0) -> Plain:
    return Plain(random(3, 4, seed=seed), random(3, 4, seed=seed + 1))
