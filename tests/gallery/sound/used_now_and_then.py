"""A layer is used in each fiftieth step, and another from the hundred and tenth on."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    model = nn.ModuleDict({"first": nn.Linear(8, 4), "seldom": nn.Linear(8, 5), "late": nn.Linear(8, 6)})
    optimizer = Adam().attach(model)
    for step in range(120):
        optimizer.zero_grad()
        used = ["first"] + ["seldom"] * (step % 50 == 49) + ["late"] * (step >= 109)
        for name in used:
            model[name](torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
    return optimizer, model
