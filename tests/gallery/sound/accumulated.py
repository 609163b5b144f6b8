"""Gradients of four batches are added up for each step, and clipped by a bound that often acts."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = Adam(gradient_clip_norm=0.25).attach(model)
    for batch in range(404):
        model(torch.randn(16, 8)).square().mean().backward()
        if batch % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
    return optimizer, model
