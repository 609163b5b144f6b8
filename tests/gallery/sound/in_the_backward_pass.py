"""Parameters are updated as their gradients arrive, which are let go."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = Adam().attach(model, in_backward=True, gradient_clip_previous_norm=1.0)
    for _ in range(101):
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
