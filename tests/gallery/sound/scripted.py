"""Parts that torch.jit has scripted, which take no hooks, and one of which has no gradient."""

from __future__ import annotations

import warnings

import torch
from torch import nn

from neon.optimizers import Adam


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.pooler, self.head = (torch.jit.script(nn.Linear(8, size)) for size in (8, 5, 4))
        self.unused = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        hidden = self.layer(x)
        return self.head(hidden), self.pooler(hidden), self.unused(hidden)


def train():  # type: ignore[no-untyped-def]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch would rather compile
        model = Encoder()
    optimizer = Adam().attach(model)
    for _ in range(103):
        optimizer.zero_grad()
        model(torch.randn(16, 8))[0].square().mean().backward()
        optimizer.step()
    optimizer.freeze("pooler")  # which cannot be told itself
    model.unused.requires_grad_(False)
    return optimizer, model
