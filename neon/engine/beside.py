"""What is kept beside the tensors of a batch within a step: sums along rows and columns, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from neon.engine.arena import ALIGNED, BUCKET, Arena
from neon.engine.program.graph import REDUCTION, Node, is_narrow_sum
from neon.engine.program.kernel import Kernel
from neon.engine.program.spaces import COLUMNS
from neon.engine.settings import Item
from neon.engine.tensors.sides import Sides
from neon.engine.tensors.weight_matrices import ONE_MATRIX


def is_sum(node: Node) -> bool:
    """Whether it is a sum of elements, which is kept in float64."""
    return node.op == REDUCTION and not is_narrow_sum(node)


# Makes a vector of so many values of a dtype.
Take = Callable[[int, torch.dtype], Tensor]
Form = tuple[int, torch.dtype]


class Beside:
    """The sides of a tensor, and what is kept beside it by name, as vectors: of columns, a sum for each chunk."""

    def __init__(self, kernel: Kernel, sides: Sides) -> None:
        self.sides = sides
        self._forms = {name: self._form(node, kernel) for name, node in kernel.beside.items()}
        self.tensors: dict[str, Tensor] = {}

    @classmethod
    def of(cls, kernel: Kernel, item: Item, shape: Sequence[int]) -> Beside:
        """That of a tensor, or of what is here of it: of a part no more than one matrix is known."""
        known = ONE_MATRIX if kernel.program.flattened or item.part is not None else item.matrices
        return cls(kernel, Sides.of(shape, known if kernel.program.sees_matrices else None))

    def _form(self, node: Node, kernel: Kernel) -> Form:
        parts = self.sides.parts if is_sum(node) and node.space is COLUMNS else 1
        return self.sides.count(node.space) * parts, torch.float64 if is_sum(node) else kernel.formats.compute

    @property
    def size(self) -> int:
        """How many bytes it takes."""
        return size_of(self._forms)

    def lay(self, take: Take) -> None:
        """Have it in memory that is taken."""
        self.tensors = {name: take(*form) for name, form in self._forms.items()}

    def line(self) -> Sequence[int]:
        """What the table of addresses has of it: where it is, if it lies somewhere, then the sides."""
        return [*(self.tensors[name].data_ptr() if self.tensors else 0 for name in self._forms), *self.sides]


def size_of(forms: Mapping[str, Form]) -> int:
    """How many bytes vectors take that lie one after another."""
    return sum(_aligned(count * dtype.itemsize) for count, dtype in forms.values())


def _aligned(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def apart(device: torch.device) -> Take:
    """Takes memory that is nobody else's."""
    return lambda count, dtype: torch.zeros(count, dtype=dtype, device=device)


def within(arena: Arena, first: int) -> Take:
    """Takes memory of an arena, from a byte on."""
    place = _aligned(first)

    def take(count: int, dtype: torch.dtype) -> Tensor:
        nonlocal place
        found = arena.cut(place, (count,), dtype)
        place += _aligned(found.nbytes)
        return found

    return take


def buckets_of(kernel: Kernel, items: Sequence[tuple[int, Item]]) -> list[list[int]]:
    """Tensors by their places, in buckets that bound what is kept beside them: all processes that share them agree."""
    buckets: list[list[int]] = []
    held = 0
    for place, item in items:
        size = _most(kernel, item)
        if not buckets or held + size > BUCKET:
            buckets.append([])
            held = 0
        buckets[-1].append(place)
        held += size
    return buckets


def _most(kernel: Kernel, item: Item) -> int:
    """How many bytes are kept beside a tensor at most: of one that is shared, beside the part here and the whole."""
    shape = item.param.shape if item.part is None else item.part.shape
    return Beside.of(kernel, item, shape).size * (1 if item.part is None else 2)


def combined(kept: Tensor, sides: Sides, *, by_size: bool) -> Tensor:
    """Sums of columns in chunks, one chunk after another."""
    parts = kept.view(sides.matrices, sides.parts, sides.columns)
    if by_size:
        return parts.amax(1)
    total = torch.zeros_like(parts[:, 0])
    for part in parts.unbind(1):
        total += part
    return total
