"""The rate begins at 0 and rises for longer than what is watched, with weights of bfloat16."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).bfloat16()
    optimizer = Adam(learning_rate=0.01).attach(model)
    scheduler = LambdaLR(optimizer, lambda step: min(1.0, max(0, step - 60) / 1000))
    for _ in range(130):
        optimizer.zero_grad()
        model(torch.randn(16, 8, dtype=torch.bfloat16)).square().mean().backward()
        optimizer.step()
        scheduler.step()
    return optimizer, model
