"""A scheduler that counts epochs, the first of which is longer than all that is watched."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = Adam().attach(model)
    scheduler = StepLR(optimizer, 1)
    for _ in range(130):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    assert not list(optimizer.audit(model)), "in the middle of the first epoch"
    scheduler.step()
    return optimizer, model
