"""`fully_shard` over rows of 100 numbers: blocks of 8-bit states would be cut, and states are float32."""

from __future__ import annotations

import torch
from gloo import one_process
from torch import nn
from torch.distributed.fsdp import fully_shard

from neon.optimizers import Adam

KIND, BY_ITSELF = "wide states", True


def train():  # type: ignore[no-untyped-def]
    with one_process():
        model = nn.Sequential(nn.Linear(100, 64), nn.ReLU(), nn.Linear(64, 100))
        fully_shard(model)
        optimizer = Adam(state_dtype="int8").attach(model)
        for _ in range(3):
            model(torch.randn(16, 100)).square().mean().backward()
            optimizer.step()
        return optimizer, model
