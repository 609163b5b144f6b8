"""An embedding and the head over it share a weight."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20, bias=False))
    model[1].weight = model[0].weight
    optimizer = Adam().attach(model)
    for _ in range(101):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(torch.randint(20, (16,))), torch.randint(20, (16,))).backward()
        optimizer.step()
    return optimizer, model
