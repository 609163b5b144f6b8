"""The bound is a million: gradients do not come near it."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam

KIND, BY_ITSELF = "clips never", False


def train():  # type: ignore[no-untyped-def]
    model = nn.Linear(8, 4)
    optimizer = Adam(gradient_clip_norm=1e6).attach(model)

    for _ in range(100):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
