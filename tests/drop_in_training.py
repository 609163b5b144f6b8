"""Parameters, gradients, steps and saved files that tests of the drop-in classes share."""

from __future__ import annotations

import io
from typing import Any

import torch
from constructors import DROP_INS, OF_MATRICES
from torch import nn

# but for Muon, which takes matrices alone: test_muon.py
SHARED = [name for name in DROP_INS if hasattr(torch.optim, name) and name not in OF_MATRICES]
STEPS = 8
BOUND = 2e-15  # float64, relative to the largest entry; seen: 8e-16

Case = dict[str, Any]


def parameters(dtype: torch.dtype = torch.float64) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))
        for shape in ((3, 4), (4,), (), (2, 3))
    ]


def give(params: Any, step: int) -> None:
    for number, p in enumerate(params):
        generator = torch.Generator().manual_seed(100 * step + number)
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype)


def train(params: Any, opt: Any, steps: int = STEPS) -> None:
    for step in range(steps):
        give(params, step)
        opt.step()


def assert_close(found: list[nn.Parameter], expected: list[nn.Parameter]) -> None:
    for p, q in zip(found, expected, strict=True):
        assert float((p - q).detach().abs().max()) <= BOUND * float(q.detach().abs().max())


SIZED: dict[str, tuple[str, Case]] = {
    "SGD": ("SGD", {"momentum": 0.9}),
    "Adam": ("Adam", {}),
    "AMSGrad": ("AdamW", {"amsgrad": True}),
    "RMSprop": ("RMSprop", {"momentum": 0.9}),
    "Adagrad": ("Adagrad", {}),
    "Adadelta": ("Adadelta", {}),
}


def large(dtype: torch.dtype, seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(64, 96, generator=generator).to(dtype))]


def saved(opt: Any) -> Any:
    file = io.BytesIO()
    torch.save(opt.state_dict(), file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)
