"""A model that is compiled after the optimizer was attached, and audited as it is then."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    inner = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = Adam().attach(inner)
    model = torch.compile(inner, backend="eager")

    for _ in range(101):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
