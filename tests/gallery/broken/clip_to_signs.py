"""A clip by value is far below all gradients: what is left are signs."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import GradientDescentMomentum

KIND, BY_ITSELF = "clips always", True


def train():  # type: ignore[no-untyped-def]
    model = nn.Linear(8, 4)
    optimizer = GradientDescentMomentum(1e-3, 0.0, gradient_clip_value=1e-6).attach(model)

    for _ in range(100):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
