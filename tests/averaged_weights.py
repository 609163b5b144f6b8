"""Averages of weights of a small model, and the steps that make them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

DECAY, STEPS = 0.75, 6


def averages(optimizer: Any) -> list[Tensor]:
    return [optimizer.state[p]["weight_average"] for group in optimizer.param_groups for p in group["params"]]


def small_model() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2))


def learn(model: nn.Module, optimizer: Any, steps: int = 1) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.full((3, 5), 0.1 * (step + 1))).square().sum().backward()
        optimizer.step()
