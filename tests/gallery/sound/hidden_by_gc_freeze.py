"""After gc.freeze() nobody is shown the other half's optimizer, and the scheduler, which are there."""

from __future__ import annotations

import gc

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from neon.optimizers import Adam

ELSEWHERE = []  # a scheduler that is kept, and steps once in 200


def train():  # type: ignore[no-untyped-def]
    model = nn.ModuleDict({"generator": nn.Linear(8, 8)})
    of_generator = Adam().attach(model)
    model["critic"] = nn.Linear(8, 1)
    of_critic = Adam().attach(model["critic"])
    ELSEWHERE.extend([of_critic, OneCycleLR(of_generator, 0.01, total_steps=300)])
    gc.freeze()
    try:
        for _ in range(101):
            for optimizer, sign in ((of_generator, 1), (of_critic, -1)):
                optimizer.zero_grad()
                (model["critic"](model["generator"](torch.randn(16, 8))).mean() * sign).backward()
                optimizer.step()
        assert not of_generator.audit(), of_generator.audit()
        assert any("gc.freeze" in note for note in of_generator.audit().notes)
    finally:
        gc.unfreeze()
    return of_generator, model
