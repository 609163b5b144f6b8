"""The loss is a sum over a batch, and the bound was meant for a mean."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam

KIND, BY_ITSELF = "clips always", True


def train():  # type: ignore[no-untyped-def]
    model = nn.Linear(8, 4)
    optimizer = Adam(gradient_clip_norm=0.01, learning_rate=1e-5).attach(model)
    for _ in range(100):
        optimizer.zero_grad()
        (model(torch.randn(512, 8)) - 1).square().sum().backward()
        optimizer.step()
    return optimizer, model
