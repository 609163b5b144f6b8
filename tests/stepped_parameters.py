"""Parameters whose values go by their names, optimizers that have stepped them, and bits to compare."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import neon.torch
from neon.optimizers import (
    Adam,
    Optimizer,
)
from neon.torch import AttachedOptimizer


def bits(value: Any) -> Any:
    """A value of which two are equal only where every bit of every tensor is."""
    if isinstance(value, torch.Tensor):
        return (
            value.dtype,
            value.shape,
            value.detach().flatten().clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy().tobytes(),
        )
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, (list, tuple)) else value


def parameters(shapes: dict[str, tuple[int, ...]]) -> dict[str, nn.Parameter]:
    """Named parameters, each with values and a gradient that go by its name."""
    made = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        made[name] = nn.Parameter(torch.randn(shape, generator=generator))
        made[name].grad = torch.randn(shape, generator=generator)
    return made


def stepped(optimizer: Optimizer, *, named: bool = True, **shapes: tuple[int, ...]) -> AttachedOptimizer:
    """The optimizer over parameters of these shapes, after a step."""
    made = parameters(shapes)
    opt = optimizer.attach(list(made.items()) if named else list(made.values()))
    opt.step()
    return opt


def by_name(opt: AttachedOptimizer) -> dict[str, Any]:
    """Bits of parameters and states, by the names of the parameters."""
    group = opt.param_groups[0]
    return {n: bits([p, opt.state[p]]) for n, p in zip(group["param_names"], group["params"], strict=True)}


def saved_by(optimizer: Optimizer, *, named: bool = True, **shapes: tuple[int, ...]) -> dict[str, Any]:
    return stepped(optimizer, named=named, **shapes).state_dict()


def torchs(kind: str, **options: Any) -> dict[str, Any]:
    """A checkpoint of torch's class; `...` takes a value out of its group."""
    params = parameters({"w": (2,), "v": (3,)}).values()
    opt = getattr(torch.optim, kind)(params, lr=0.1, **{k: v for k, v in options.items() if v is not ...})
    opt.step()
    saved = opt.state_dict()
    for key in [key for key, value in options.items() if value is ...]:
        del saved["param_groups"][0][key]
    return saved


def drop_in(kind: str, **options: Any) -> AttachedOptimizer:
    opt = getattr(neon.torch, kind)(parameters({"w": (2,), "v": (3,)}).values(), lr=0.1, **options)
    opt.step()
    return opt


def one() -> AttachedOptimizer:
    return stepped(Adam(), w=(2,), v=(3,))
