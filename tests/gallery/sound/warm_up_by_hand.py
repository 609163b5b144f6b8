"""The rate of the first step is 0, and whoever trains writes the next ones into the groups."""

from __future__ import annotations

import torch
from torch import nn

from neon.torch import SGD


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = SGD(model.parameters(), lr=0.0, momentum=0.9)
    for step in range(101):
        for group in optimizer.param_groups:
            group["lr"] = 0.001 * step
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
