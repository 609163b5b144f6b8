"""`fully_shard` is called after the optimizer was attached: it has the parameters of before."""

from __future__ import annotations

import torch
from gloo import one_process
from torch import nn
from torch.distributed.fsdp import fully_shard

from neon.optimizers import Adam

KIND, BY_ITSELF = "replaced", True


def train():  # type: ignore[no-untyped-def]
    with one_process():
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        optimizer = Adam().attach(model)
        fully_shard(model)
        for _ in range(3):
            model(torch.randn(16, 8)).square().mean().backward()
            optimizer.step()
        return optimizer, model
