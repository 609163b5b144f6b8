"""`fully_shard`, then attach, with whole parameters left in place after the backward pass."""

from __future__ import annotations

import torch
from gloo import one_process
from torch import nn
from torch.distributed.fsdp import fully_shard

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    with one_process():
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        fully_shard(model)
        model.set_reshard_after_backward(False)  # type: ignore[operator]
        optimizer = Adam(gradient_clip_norm=1.0).attach(model)
        for _ in range(101):
            optimizer.zero_grad()
            model(torch.randn(16, 8)).square().mean().backward()
            optimizer.step()
        return optimizer, model
