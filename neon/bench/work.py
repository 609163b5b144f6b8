"""The tensors that contenders step over, what a step must move of them, and whether all do the same work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neon.bench.shapes import Shapes

TOLERANCE = 1e-4
CLIP_VALUE = 0.01


class AgreementError(Exception):
    """Contenders do different work: their times cannot be compared."""


@dataclass(frozen=True)
class Work:
    """Parameters with gradients, and the bound of each clipping option.

    Torch clips the gradients in place, once and for all: afterwards their norm is the bound, no element is beyond
    the bound, and clipping again (by a factor of about 1) costs what it cost. neon leaves the gradients as
    they are. None of it takes a branch by value, so each step of each contender is the same work.
    """

    params: list[Tensor]
    bounds: dict[str, float]
    grouped: bool

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """One parameter group; or one for each parameter, each with a learning rate of its own."""
        if not self.grouped:
            return [{"params": self.params}]
        count = len(self.params)
        return [{"params": [param], "lr": lr * (1 + i / count)} for i, param in enumerate(self.params)]


def make_work(shapes: Shapes, dtype: torch.dtype = torch.float32) -> Work:
    """Parameters below 0.01 in size, gradients of either sign and 0.005 to 0.015 in size, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    params: list[Tensor] = []
    for shape in shapes.tensors:
        value, grad = (torch.rand(shape, generator=generator).sub_(0.5).mul_(0.02) for _ in range(2))
        grad.add_(torch.sign(grad), alpha=0.005)
        params.append(value.to(dtype).requires_grad_())
        params[-1].grad = grad.to(dtype)
    bounds = {"norm": 0.5 * float(torch.stack([g.float().norm() for g in gradients(params)]).norm())}
    return Work(params, bounds | {"value": CLIP_VALUE}, shapes.grouped)


def gradients(params: list[Tensor]) -> Iterator[Tensor]:
    return (param.grad for param in params if param.grad is not None)


@dataclass(frozen=True)
class Traffic:
    """Bytes that a step reads or writes (`touched`) and what it must move over the bus (`moved`).

    Each tensor is read once, and written once where it changes; a clip by norm reads the gradients again.
    """

    touched: int
    moved: int

    @staticmethod
    def of(optimizer: torch.optim.Optimizer, params: list[Tensor], option: str) -> Traffic:
        weights, grads = (sum(t.nbytes for t in tensors) for tensors in (params, gradients(params)))
        states = sum(
            state.nbytes for param in params for name, state in optimizer.state[param].items() if name != "step"
        )
        readings = 2 if option == "norm" else 1
        return Traffic(weights + grads + states, 2 * weights + readings * grads + 2 * states)


def flat(params: Sequence[Tensor]) -> Tensor:
    """All elements in one new vector of float32."""
    return torch.cat([param.detach().flatten().float() for param in params])


def largest_difference(start: Tensor, ends: Mapping[str, Tensor]) -> float:
    """How far the others end from neon, as a fraction of neon's largest update.

    Raises:
        AgreementError: by more than a ten-thousandth, or neon did nothing.
    """
    ours = ends["neon"]
    update = (ours - start).abs().max()
    differences = {who: float((ours - end).abs().max() / update) for who, end in ends.items() if who != "neon"}
    for who, difference in differences.items():
        if not difference < TOLERANCE:
            raise AgreementError(f"neon and torch ({who}) differ by {difference:.1e} of an update: not the same work")
    if not update > 0:
        raise AgreementError("neon's step changed nothing")
    return max(differences.values(), default=0.0)
