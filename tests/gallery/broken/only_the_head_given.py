"""The parameters of the head alone are given, and the rest was meant to be trained too."""

from __future__ import annotations

import torch
from torch import nn

from neon.torch import SGD

KIND, BY_ITSELF = "not given", False


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = SGD(model[2].parameters(), lr=0.1)

    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
