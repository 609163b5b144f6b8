"""One half of a module is trained first, by an optimizer that has both."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    model = nn.ModuleDict({"generator": nn.Linear(4, 8), "critic": nn.Linear(8, 1)})
    optimizer = Adam().attach(model)
    for step in range(140):
        optimizer.zero_grad()
        if step < 120:  # the critic first
            model["critic"](torch.randn(16, 8)).square().mean().backward()
        else:
            model["critic"](model["generator"](torch.randn(16, 4))).square().mean().backward()
        optimizer.step()
    return optimizer, model
