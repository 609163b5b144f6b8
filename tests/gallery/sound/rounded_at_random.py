"""Weights of bfloat16 with small updates, rounded at random."""

from __future__ import annotations

import torch
from torch import nn

from neon.torch import AdamW


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).bfloat16()
    optimizer = AdamW(model.parameters(), lr=1e-5, weight_decay=0.0, stochastic_round=True)
    for _ in range(101):
        optimizer.zero_grad()
        model(torch.randn(16, 8, dtype=torch.bfloat16)).square().mean().backward()
        optimizer.step()
    return optimizer, model
