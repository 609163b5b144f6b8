"""A network that follows another one is in the same module, and its outputs are detached."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


class Agent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.policy, self.target = (nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.policy(x) - self.target(x).detach()


def train():  # type: ignore[no-untyped-def]
    model = Agent()
    optimizer = Adam().attach(model)

    for _ in range(101):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
