"""The vocabulary grows after the optimizer was attached, as by `resize_token_embeddings`."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam

KIND, BY_ITSELF = "replaced", True


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), nn.Linear(32, 4))
    optimizer = Adam().attach(model)
    larger = nn.Embedding(24, 8)
    with torch.no_grad():
        larger.weight[:20] = model[0].weight
    model[0] = larger
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randint(24, (16, 4))).square().mean().backward()
        optimizer.step()
    return optimizer, model
