"""The same over rows of 256 numbers, and vectors, which are cut anywhere and are little beside them."""

from __future__ import annotations

import torch
from gloo import one_process
from torch import nn
from torch.distributed.fsdp import fully_shard

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    with one_process():
        model = nn.Sequential(nn.Linear(256, 512), nn.LayerNorm(512), nn.Linear(512, 8192))
        fully_shard(model)
        optimizer = Adam(state_dtype="int8").attach(model)
        for _ in range(3):
            model(torch.randn(2, 256)).square().mean().backward()
            optimizer.step()
        return optimizer, model
