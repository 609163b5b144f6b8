"""Two halves of one module, each with an optimizer of its own that leaves the other alone."""

from __future__ import annotations

import torch
from torch import nn

from neon.optimizers import Adam, MultiOptimizer


def train():  # type: ignore[no-untyped-def]
    model = nn.ModuleDict({"generator": nn.Linear(4, 8), "critic": nn.Linear(8, 1)})
    of_generator = MultiOptimizer({"default": Adam(), "critic": None}).attach(model)
    of_critic = MultiOptimizer({"default": Adam(), "generator": None}).attach(model)
    for _ in range(101):
        made, real = model["generator"](torch.randn(16, 4)), torch.randn(16, 8)
        of_critic.zero_grad()
        model.zero_grad()
        (model["critic"](made.detach()).mean() - model["critic"](real).mean()).backward()
        of_critic.step()
        model.zero_grad()
        (-model["critic"](made).mean()).backward()
        of_generator.step()
    assert not list(of_critic.audit(model))
    return of_generator, model
