"""Only biases are trained (BitFit), by what the optimizer is given."""

from __future__ import annotations

import torch
from torch import nn

from neon.torch import SGD


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    for layer in (model[0], model[2]):
        layer.weight.requires_grad_(False)
    optimizer = SGD([param for param in model.parameters() if param.requires_grad], lr=0.1)

    for _ in range(101):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
