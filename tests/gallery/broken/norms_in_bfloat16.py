"""The same, asked for before the second step: the scales of a norm are 1, and all else is near 0."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam

KIND, BY_ITSELF = "rounding", False


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4)).bfloat16()
    optimizer = Adam(learning_rate=1e-3).attach(model)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(16, 8, dtype=torch.bfloat16)).square().mean().backward()
        optimizer.step()
    return optimizer, model
