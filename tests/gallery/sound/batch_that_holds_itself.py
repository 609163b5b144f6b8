"""A batch is a dict that holds itself, and goes through parts of which one has no gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from neon.optimizers import Adam


class Part(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.layer = nn.Linear(8, size)

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {"batch": batch, "outputs": self.layer(batch["inputs"])}


def train():  # type: ignore[no-untyped-def]
    model = nn.ModuleDict({"head": Part(4), "unused": Part(5)})
    optimizer = Adam().attach(model)
    for _ in range(103):
        optimizer.zero_grad()
        batch: dict[str, Any] = {"inputs": torch.randn(16, 8), "names": [["a", "b"], {"c"}]}
        batch["whole"] = batch
        model["unused"](batch)
        model["head"](batch)["outputs"].square().mean().backward()
        optimizer.step()
    model["unused"].requires_grad_(False)
    return optimizer, model
