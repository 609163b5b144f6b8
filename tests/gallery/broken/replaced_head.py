"""A classifier gets a head for other classes after the optimizer was attached."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam

KIND, BY_ITSELF = "replaced", True


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = Adam().attach(model)
    model[2] = nn.Linear(16, 10)

    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
