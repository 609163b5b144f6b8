"""A warm-up of 3,000 steps that whoever trains writes into the groups: of its first hundred rounding loses most."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8)).bfloat16()
    optimizer = Adam().attach(model)
    for step in range(120):
        for group in optimizer.param_groups:
            group["lr"] = 0.05 * (min(1.0, (step + 1) / 3000) if step < 110 else 1.0)  # in the end as later
        optimizer.zero_grad()
        outputs = model(torch.randn(16, 64, dtype=torch.bfloat16)).float()
        (outputs - 3 * torch.randn_like(outputs)).square().mean().backward()
        optimizer.step()
    return optimizer, model
