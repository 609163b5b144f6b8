"""A pooler is computed in each step, and no loss uses what it gives."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.pooler, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        hidden = self.layer(x).relu()
        pooled = self.pooler(hidden)
        return self.head(hidden), pooled


def train():  # type: ignore[no-untyped-def]
    model = Encoder()
    optimizer = Adam().attach(model)
    for _ in range(90):
        optimizer.zero_grad()
        model(torch.randn(16, 8))[0].square().mean().backward()
        optimizer.step()
    assert not optimizer.audit()
    for _ in range(15):
        optimizer.zero_grad()
        model(torch.randn(16, 8))[0].square().mean().backward()
        optimizer.step()
    model.pooler.requires_grad_(False)
    return optimizer, model
