"""A schedule of thousands of steps is made and never stepped: the rate stays at its start."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from neon.optimizers import Adam

KIND, BY_ITSELF = "schedule", True


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = Adam().attach(model)
    model.scheduler = OneCycleLR(optimizer, max_lr=1e-2, total_steps=10_000)

    for _ in range(100):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
