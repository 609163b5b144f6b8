"""Training large enough for several threads, with a fingerprint of all its bits."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from neon.optimizers import Adam, Optimizer

LARGE = (250_003, 70_001)  # several chunks each, none of them full at the end; enough for the pool


def adam() -> Adam:
    return Adam(learning_rate=0.01, gradient_clip_norm=0.5)


class Run:
    """Large tensors and an optimizer of theirs; gradients are made beforehand."""

    def __init__(self, opt: Optimizer, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.params = [nn.Parameter(torch.randn(n, generator=generator)) for n in LARGE]
        self.grads = [[torch.randn(n, generator=generator) for n in LARGE] for _ in range(4)]
        self.opt = opt.attach(self.params)

    def step(self, steps: range) -> Run:
        for step in steps:
            for p, g in zip(self.params, self.grads[step], strict=True):
                p.grad = g
            self.opt.step()
        return self

    def digest(self) -> str:
        """A fingerprint of every bit of parameters and states."""
        tensors = [t.detach() for p in self.params for t in (p, *self.opt.state[p].values())]
        return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


def digest(opt: Optimizer, seed: int = 0) -> str:
    return Run(opt, seed).step(range(4)).digest()
