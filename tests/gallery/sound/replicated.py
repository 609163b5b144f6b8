"""`DistributedDataParallel` around the model that the optimizer was attached to."""

from __future__ import annotations

import torch
from gloo import one_process
from torch import nn

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    with one_process():
        inner = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        optimizer = Adam().attach(inner)
        model = nn.parallel.DistributedDataParallel(inner)
        for _ in range(101):
            optimizer.zero_grad()
            model(torch.randn(16, 8)).square().mean().backward()
            optimizer.step()
        return optimizer, model
