"""A constant rate at first, and then a schedule of more steps than there are epochs, which has made none yet."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import ChainedScheduler, ConstantLR, OneCycleLR, SequentialLR

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = Adam().attach(model)
    parts = [ConstantLR(optimizer, 0.1, total_iters=200), OneCycleLR(optimizer, 0.01, total_steps=5000)]
    scheduler = ChainedScheduler([SequentialLR(optimizer, parts, [200])])
    for _ in range(110):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
        scheduler.step()
    assert not list(optimizer.audit(model)), "while they are there"
    for _ in range(100):
        scheduler.step()
    return optimizer, model
