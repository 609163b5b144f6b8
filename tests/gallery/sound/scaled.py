"""A GradScaler, whose first steps and the hundredth are left out for infinite gradients."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = Adam(gradient_clip_norm=1.0).attach(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
    for step in range(120):
        optimizer.zero_grad()
        loss = model(torch.randn(16, 8)).square().mean()
        scaler.scale(loss * (float("inf") if step in (0, 100) else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
    return optimizer, model
