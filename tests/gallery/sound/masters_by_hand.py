"""Somebody puts float32 copies into the groups, as trainers do, and copies these back."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).bfloat16()
    optimizer = Adam().attach(model)
    masters = [nn.Parameter(param.detach().float()) for param in model.parameters()]
    optimizer.param_groups[0]["params"][:] = masters
    for _ in range(101):
        model.zero_grad()
        model(torch.randn(16, 8, dtype=torch.bfloat16)).square().mean().backward()
        for master, param in zip(masters, model.parameters(), strict=True):
            master.grad = param.grad.float()
        optimizer.step()
        with torch.no_grad():
            for master, param in zip(masters, model.parameters(), strict=True):
                param.copy_(master)
    return optimizer, model
