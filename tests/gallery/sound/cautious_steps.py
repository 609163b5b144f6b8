"""A cautious step leaves more than half of the elements where they are, of bfloat16 too: rounding loses few of them."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Cautious, GradientDescentMomentum


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8)).bfloat16()
    optimizer = Cautious(GradientDescentMomentum(3e-4, 0.99)).attach(model)
    for _ in range(101):
        optimizer.zero_grad()
        outputs = model(torch.randn(2, 64, dtype=torch.bfloat16))
        (outputs - 5 * torch.randn_like(outputs)).square().mean().backward()
        optimizer.step()
    return optimizer, model
