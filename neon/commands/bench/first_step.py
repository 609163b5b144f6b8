"""``python -m neon.commands.bench.first_step neon|torch RULE`` prints the seconds that a first step takes."""

from __future__ import annotations

import sys
import time

import torch
from torch import nn


def first_step(who: str, rule: str) -> float:
    """Import of the optimizer, its construction and one step; torch and the model are there already."""
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    model(torch.ones(128, 64)).sum().backward()
    start = time.perf_counter()
    if who == "neon":
        from neon import optimizers

        getattr(optimizers, rule)().attach(model).step()
    else:
        getattr(torch.optim, rule)(model.parameters(), fused=True).step()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(first_step(*sys.argv[1:]))
