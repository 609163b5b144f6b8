"""An adapter that is switched off hands on its inputs, and a frozen encoder has a pooler that nobody uses.

What comes behind takes these outputs detached; nothing of the parameters without gradients is in them.
"""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


class Adapter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.is_on = nn.Linear(8, 8, bias=False), False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layer(x) if self.is_on else x


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.pooler = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.trunk(x).relu()


class Agent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inputs, self.adapter, self.encoder = nn.Linear(8, 8), Adapter(), Encoder()
        self.policy, self.value, self.critic = nn.Linear(8, 4), nn.Linear(8, 1), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        adapted = self.adapter(self.inputs(x))
        hidden = self.encoder(adapted)
        return self.policy(hidden), self.value(hidden.detach()), self.critic(adapted.detach())


def train():  # type: ignore[no-untyped-def]
    model = Agent()
    optimizer = Adam().attach(model)
    for _ in range(103):
        optimizer.zero_grad()
        sum(output.square().mean() for output in model(torch.randn(16, 8))).backward()
        optimizer.step()
    model.adapter.requires_grad_(False)
    model.encoder.requires_grad_(False)
    return optimizer, model
