"""A layer that is one number with its gradient, for promises about steps."""

from __future__ import annotations

from typing import Any

import torch


class Plain:
    """One number with its gradient."""

    def __init__(self, gradient: float = 1.0, name: str | None = None) -> None:
        self.w, self.g = torch.zeros(1, dtype=torch.float64), torch.full((1,), gradient, dtype=torch.float64)
        self.name = name
        self.states: list[Any] = []

    def get_params(self) -> Any:
        return (self.w, self.g), self.states
