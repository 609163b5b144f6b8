"""Adapters are merged into their layer, and training goes on: of what the optimizer has, half is gone."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


class Adapted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base, self.adapter = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base(x) + self.adapter(x)

    def merged(self) -> nn.Linear:
        with torch.no_grad():
            self.base.weight += self.adapter.weight
        return self.base


KIND, BY_ITSELF = "lost", True


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(Adapted(), nn.ReLU(), nn.Linear(8, 4))
    optimizer = Adam().attach(model)
    model[0] = model[0].merged()

    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
