"""A key of a mapping has a rate of 0, and nothing ever moves it."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam, MultiOptimizer

KIND, BY_ITSELF = "rate 0", True


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = MultiOptimizer({"default": Adam(), "2": Adam(learning_rate=0.0)}).attach(model)

    for _ in range(100):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
