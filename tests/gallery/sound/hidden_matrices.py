"""Muon for hidden matrices, AdamW for all else, decay for matrices alone."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import AdamW, MultiOptimizer, Muon


def train():  # type: ignore[no-untyped-def]
    model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 20))
    keys = {"default": AdamW(wdecay=0.01), "Bias": AdamW(wdecay=0.0), "HiddenMatrix": Muon()}
    optimizer = MultiOptimizer(keys).attach(model)
    for _ in range(101):
        optimizer.zero_grad()
        model(torch.randint(20, (16,))).square().mean().backward()
        optimizer.step()
    return optimizer, model
