"""Muon is given every matrix of a model, the embedding among them."""

from __future__ import annotations

import torch
from torch import nn

from neon.torch import Muon

KIND, BY_ITSELF = "matrix rule", False


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 20, bias=False))
    optimizer = Muon(model.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randint(20, (16,))).square().mean().backward()
        optimizer.step()
    return optimizer, model
