"""Of four experts two never get a token."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


class Mixture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(4))
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = (x[:, 0] > 0).long()  # the last two never
        mixed = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            tokens = (chosen == number).nonzero()[:, 0]
            if len(tokens):
                mixed = mixed.index_copy(0, tokens, expert(x[tokens]))
        return self.head(mixed)


def train():  # type: ignore[no-untyped-def]
    model = Mixture()
    optimizer = Adam().attach(model)

    for _ in range(101):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
