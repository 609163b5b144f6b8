"""The function that makes the scheduler does not return it."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from neon.attached.attached_optimizer import AttachedOptimizer
from neon.optimizers import Adam


def configured(model: nn.Module) -> AttachedOptimizer:
    optimizer = Adam().attach(model)
    StepLR(optimizer, 30)
    return optimizer


KIND, BY_ITSELF = "schedule", False


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = configured(model)

    for _ in range(100):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
