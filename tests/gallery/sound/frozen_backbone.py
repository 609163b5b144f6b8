"""A backbone is frozen, and only the head is trained."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    model[0].requires_grad_(False)
    optimizer = Adam().attach(model)

    for _ in range(101):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
