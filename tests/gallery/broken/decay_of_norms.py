"""Weight decay pulls the scales of a norm, and biases, towards 0."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import AdamW

KIND, BY_ITSELF = "decay", False


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 4))
    optimizer = AdamW().attach(model)

    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
