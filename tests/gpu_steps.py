"""Steps of a rule in three formats, on any device, from the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from rule_cases import OF_MATRICES, make
from state_tensors import tensors_of
from torch import Tensor

SIZES = (3, 4097, 200_003)
FORMATS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"state_dtype": "bfloat16", "stochastic_round": True},
    "int8": {"state_dtype": "int8", "master": "split"},
}


def steps(rule: str, option: str, format: str, device: str, start: int = 0) -> Iterator[list[Tensor]]:
    """Weights and states after each of some steps; weights begin so many elements behind what memory is aligned to."""
    generator = torch.Generator().manual_seed(0)
    dtype = torch.float32 if format == "float32" else torch.bfloat16
    values = [torch.randn(n, generator=generator) for n in SIZES]
    places = [torch.zeros(n + start, device=device, dtype=dtype)[start:] for n in SIZES]
    shape = (1, -1) if rule in OF_MATRICES else (-1,)
    params = [p.copy_(value).view(shape).requires_grad_() for p, value in zip(places, values, strict=True)]
    opt = make(rule, option, **FORMATS[format]).attach(params)
    for _ in range(4):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(device, dtype)
        opt.step()
        yield [t.detach().cpu().clone() for p in params for t in (p, *tensors_of(opt.state[p]))]
