"""A representation is detached on its way to the head: the encoder never learns."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = nn.Sequential(nn.Linear(8, 16), nn.ReLU()), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(x).detach())


KIND, BY_ITSELF = "no gradient", True


def train():  # type: ignore[no-untyped-def]
    model = Classifier()
    optimizer = Adam().attach(model)

    for _ in range(100):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
