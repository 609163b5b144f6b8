"""What is kept beside the tensors of a batch within a step: sums along rows and columns, and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neon.engine.program.graph import REDUCTION, Node, is_narrow_sum
from neon.engine.program.kernel import Kernel
from neon.engine.program.spaces import COLUMNS
from neon.engine.settings import Item
from neon.engine.tensors.sides import Sides
from neon.engine.tensors.weight_matrices import ONE_MATRIX


def is_sum(node: Node) -> bool:
    """Whether it is a sum of elements, which is kept in float64."""
    return node.op == REDUCTION and not is_narrow_sum(node)


class Beside:
    """The sides of a tensor, and what is kept beside it by name, as vectors: of columns, a sum for each chunk."""

    def __init__(self, kernel: Kernel, item: Item) -> None:
        # Of a part of a tensor no more than one matrix is known.
        known = ONE_MATRIX if kernel.program.flattened or item.part is not None else item.matrices
        self.sides = Sides.of(item.param.shape, known if kernel.program.sees_matrices else None)
        self.tensors = {name: self._new(node, kernel, item.param) for name, node in kernel.beside.items()}

    def _new(self, node: Node, kernel: Kernel, param: Tensor) -> Tensor:
        parts = self.sides.parts if is_sum(node) and node.space is COLUMNS else 1
        dtype = torch.float64 if is_sum(node) else kernel.formats.compute
        return torch.zeros(self.sides.count(node.space) * parts, dtype=dtype, device=param.device)

    def line(self) -> Sequence[int]:
        """What the table of addresses has of it: where it is, then the sides."""
        return [*map(Tensor.data_ptr, self.tensors.values()), *self.sides]


def combined(kept: Tensor, sides: Sides, *, by_size: bool) -> Tensor:
    """Sums of columns in chunks, one chunk after another."""
    parts = kept.view(sides.matrices, sides.parts, sides.columns)
    if by_size:
        return parts.amax(1)
    total = torch.zeros_like(parts[:, 0])
    for part in parts.unbind(1):
        total += part
    return total
