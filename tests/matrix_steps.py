"""Matrices of many shapes and a small network, their gradients by step, and the bits that Muon ends with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from stepped_parameters import bits
from torch import Tensor, nn

from neon.optimizers import Muon, Optimizer
from neon.torch import AttachedOptimizer

# Equal ones, one transposed, some whose sides are no multiples of anything, a convolution, rows and columns.
SHAPES = [
    (16, 48),
    (16, 48),
    (48, 16),
    (5, 7),
    (5, 7),
    (7, 5),
    (8, 3, 3, 3),
    (1, 9),
    (9, 1),
    (1, 1),
    (33, 33),
    (0, 4),
    (4, 0),
]


def weights(shapes: Iterable[Sequence[int]] = SHAPES, dtype: torch.dtype = torch.float32) -> list[Any]:
    """Parameters whose values go by their places."""
    return [
        nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(place)).to(dtype))
        for place, shape in enumerate(shapes)
    ]


def gradient(place: int, step: int, like: Tensor, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * step + place)
    return (torch.randn(like.shape, generator=generator) * scale).to(like.dtype)


def give(params: Sequence[Tensor], step: int, scale: float = 1.0, without: Iterable[int] = ()) -> None:
    for place, p in enumerate(params):
        p.grad = None if place in without else gradient(place, step, p, scale)


def muon(**options: Any) -> Muon:
    return Muon(**{"learning_rate": 0.02, "momentum_coef": 0.9, **options})


def state_of(opt: AttachedOptimizer, p: Tensor) -> dict[str, Any]:
    return dict(opt.state.get(p, {}))


def all_bits(opt: AttachedOptimizer, params: Sequence[Tensor]) -> list[Any]:
    """Of every parameter itself and its states, in a form that equal values have alike whatever their layout."""
    return [bits([p.detach().contiguous(), state_of(opt, p)]) for p in params]


def each_alone(
    make: Callable[[int], Optimizer],
    params: Sequence[nn.Parameter],
    steps: int,
    without: Mapping[int, Iterable[int]] | None = None,
    grads: Callable[[int, int, Tensor], Tensor] = gradient,
) -> list[Any]:
    """The bits of the same parameters where each has an optimizer for itself."""
    found = []
    for place, p in enumerate(params):
        p = nn.Parameter(p.detach().clone())
        opt = make(place).attach([p])
        for step in range(steps):
            p.grad = None if place in (without or {}).get(step, ()) else grads(place, step, p)
            opt.step()
        found += all_bits(opt, [p])
    return found


def run(params: Sequence[nn.Parameter], opt: AttachedOptimizer, steps: Iterable[int]) -> list[Any]:
    for step in steps:
        give(params, step)
        opt.step()
    return all_bits(opt, params)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 40, bias=False), nn.Tanh(), nn.Linear(40, 40, bias=False), nn.Tanh(),
                         nn.Linear(40, 6, bias=False))  # fmt: skip


def backward(model: nn.Module, step: int, scale: float = 1.0) -> None:
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(step)).to(next(model.parameters()).dtype)
    (scale * model(x).square().mean()).backward()
