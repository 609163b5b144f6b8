"""A head is tied to its embedding after the optimizer was attached."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam

KIND, BY_ITSELF = "tied", False


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20, bias=False))
    optimizer = Adam().attach(model)
    model[1].weight = model[0].weight
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randint(20, (16,))).square().mean().backward()
        optimizer.step()
    return optimizer, model
