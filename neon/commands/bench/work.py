"""The tensors that contenders step over, what a step must move of them, and whether all do the same work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neon.commands.bench.tensor_shapes import Shapes, TensorShape

TOLERANCE = 1e-4
CLIP_VALUE = 0.01


class AgreementError(Exception):
    """Contenders do different work: their times cannot be compared."""


@dataclass(frozen=True)
class Work:
    """Parameters with gradients, the states of whoever steps over them, and the bound of each clipping option.

    All lie in one block, `memory`, and every contender keeps its states in the same place: where pages lie decides how
    fast they are (a difference of a half was seen between blocks of one process), and that is to favour nobody.

    Torch clips the gradients in place, once and for all: afterwards their norm is the bound, no element is beyond
    the bound, and clipping again (by a factor of about 1) costs what it cost. neon leaves the gradients as
    they are. None of it takes a branch by value, so each step of each contender is the same work.
    """

    params: list[Tensor]
    states: list[list[Tensor]]
    memory: Tensor
    bounds: dict[str, float]
    grouped: bool

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """One parameter group; or one for each parameter, each with a learning rate of its own."""
        if not self.grouped:
            return [{"params": self.params}]
        count = len(self.params)
        return [{"params": [param], "lr": lr * (1 + i / count)} for i, param in enumerate(self.params)]

    def share(self, optimizer: torch.optim.Optimizer) -> None:
        """Let an optimizer make its states, and keep them where the others do; not if the work has no place for any.

        A place is of float32 numbers. What has fewer bits lies at its beginning, the scales of its blocks behind it.
        """
        if not self.states:
            return
        optimizer.step()
        for param, places in zip(self.params, self.states, strict=True):
            state = optimizer.state[param]
            tensors = [name for name in state if name not in ("step", "scales")]
            names = [name for name in tensors if state[name].dim() or not param.dim()]  # no single numbers
            scales = state.get("scales", {})
            for name, place in zip(names, places[: len(names)], strict=True):
                block = _Block(place.flatten())
                if state[name].dtype == place.dtype and state[name].shape == place.shape:
                    state[name] = place
                else:
                    state[name] = block.cut(state[name].shape, state[name].dtype)
                if name in scales:
                    scales[name] = block.cut(scales[name].shape, scales[name].dtype)


class _Block:
    """Memory from which tensors are cut, at addresses such as torch gives them."""

    ALIGNMENT = 64

    def __init__(self, memory: Tensor) -> None:
        self.memory = memory
        self._used = 0

    @classmethod
    def size_of(cls, elements: int, dtype: torch.dtype) -> int:
        return -(-elements * dtype.itemsize // cls.ALIGNMENT) * cls.ALIGNMENT

    def cut(self, shape: TensorShape, dtype: torch.dtype) -> Tensor:
        elements = math.prod(shape)
        start, self._used = self._used, self._used + self.size_of(elements, dtype)
        part = self.memory.view(torch.uint8)[start : start + elements * dtype.itemsize]
        return part.view(dtype).view(shape)


def make_work(shapes: Shapes, dtype: torch.dtype = torch.float32, states: int = 0, device: str = "cpu") -> Work:
    """Parameters below 0.01 in size, gradients of either sign and 0.005 to 0.015 in size, the same in every call."""
    generator = torch.Generator().manual_seed(0)
    dtypes = [dtype, dtype, *[torch.float32] * states]
    size = sum(_Block.size_of(math.prod(shape), kind) for shape in shapes.tensors for kind in dtypes)
    block = _Block(torch.zeros(size // 4, device=device))
    params, grads, *places = ([block.cut(shape, kind) for shape in shapes.tensors] for kind in dtypes)
    for param, grad in zip(params, grads, strict=True):
        value, slope = (torch.rand(param.shape, generator=generator).sub_(0.5).mul_(0.02) for _ in range(2))
        param.copy_(value)
        grad.copy_(slope.add_(torch.sign(slope), alpha=0.005))
    params = [param.detach().requires_grad_() for param in params]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    bounds = {"norm": 0.5 * float(torch.stack([grad.float().norm() for grad in grads]).norm()), "value": CLIP_VALUE}
    return Work(params, [list(own) for own in zip(*places, strict=True)], block.memory, bounds, shapes.grouped)


def gradients(params: list[Tensor]) -> Iterator[Tensor]:
    return (param.grad for param in params if param.grad is not None)


def after_steps(work: Work, step: Callable[[], Any], count: int) -> Tensor:
    """Where weights end after some steps, each with other gradients: with equal ones averages would not show."""
    kept = [grad.clone() for grad in gradients(work.params)]
    for number in range(count):
        for param, grad in zip(work.params, kept, strict=True):
            param.grad = grad.roll(number)
        step()
    return flat(work.params)


def bytes_moved(optimizer: torch.optim.Optimizer, params: list[Tensor], option: str) -> int:
    """What a step must move: each tensor is read once, and written once where it changes.

    A clip by norm reads the gradients once more.
    """
    weights, grads = (sum(t.nbytes for t in tensors) for tensors in (params, gradients(params)))
    states = sum(map(state_bytes, (optimizer.state[param] for param in params)))
    readings = 2 if option == "norm" else 1
    return 2 * weights + readings * grads + 2 * states


def state_bytes(state: Mapping[str, Any]) -> int:
    """The bytes of what is kept for a parameter besides its step count; scales and low bits are part of it."""
    return sum(
        state_bytes(value) if isinstance(value, Mapping) else value.nbytes
        for name, value in state.items()
        if name != "step"
    )


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
