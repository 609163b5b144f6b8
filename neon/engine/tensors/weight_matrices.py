"""Which matrices a weight is made of: what a rule of matrices works on, and the way there and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from torch import Tensor

from neon.engine.program.spaces import COLUMNS, PAIRS, ROW_PAIRS, ROWS, Space
from neon.messages import quoted, received, shown

# A stack of equal matrices: how many, rows, columns.
Stack = tuple[int, int, int]


@dataclass(frozen=True)
class Matrices:
    """Which matrices a weight is made of: its first dimension by all others, or parts of that.

    - `parts`: into so many equal parts it is cut, or the lengths of the parts.
    - `dim`: the dimension along which it is cut: 0 in torch.nn.Linear, for outputs come first; 1 in GPT-2's Conv1D.
    - `stacked`: the first dimension counts matrices, such as the experts of a mixture; `dim` counts behind it.
    - `inputs_first`: the weight is (in × out), as GPT-2's Conv1D has it. Its matrices are transposed, so that their
      rows are outputs everywhere, and scales that go by rows and columns are right.

    A fused query, key and value of 12 heads, a matrix for each head, in a layer of 768 to 2304:

    >>> Matrices(36).shapes((2304, 768))
    [(36, 64, 768)]
    >>> Matrices((4096, 1024, 1024)).shapes((6144, 4096))  # keys and values are shared by four heads
    [(1, 4096, 4096), (2, 1024, 4096)]
    >>> Matrices(3, dim=1, inputs_first=True).shapes((768, 2304))
    [(3, 768, 768)]

    Raises `TypeError` and `ValueError` for values that are none of these.
    """

    parts: int | tuple[int, ...] = 1
    dim: int = 0
    stacked: bool = False
    inputs_first: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.parts, list):
            object.__setattr__(self, "parts", tuple(self.parts))
        counts = self.parts if isinstance(self.parts, tuple) else (self.parts,)
        if not counts or not all(map(_is_count, counts)):
            raise ValueError(
                "parts must be a number of equal parts, such as 3, or their lengths, such as (4096, 1024, 1024). "
                f"{received('parts', self.parts)}"
            )
        if not _is_count(self.dim, least=0):
            raise ValueError(f"dim must be a dimension, counted from 0. {received('dim', self.dim)}")
        for name in ("stacked", "inputs_first"):
            if not isinstance(value := getattr(self, name), bool):
                raise TypeError(f"{name} must be True or False. {received(name, value)}")

    def __repr__(self) -> str:
        given = [repr(self.parts)] if self.parts != 1 else []
        given += [f"dim={self.dim}"] if self.dim else []
        given += [f"{name}=True" for name in ("stacked", "inputs_first") if getattr(self, name)]
        return f"Matrices({', '.join(given)})"

    def check(self, name: str, shape: Sequence[int]) -> None:
        """Refuse a weight that is not made of such matrices: `ValueError` with its name."""
        first = int(self.stacked)
        has = f"Parameter {quoted(name)} has shape {tuple(shape)}"
        if len(shape) < 2 + first:
            what = "a stack of matrices, which has three dimensions and more" if first else "a matrix"
            raise ValueError(f"{has}, which is not {what}. Give it another rule.")
        if self.dim + first >= len(shape):
            raise ValueError(
                f"{has}: there is no dimension {self.dim + first} to cut it along. Received: {self}. Give dim=0, or 1."
            )
        length, where = shape[self.dim + first], f"dimension {self.dim + first}, of length {shape[self.dim + first]},"
        if isinstance(self.parts, int) and length % self.parts:
            raise ValueError(
                f"{has}: {where} is not divided by {self.parts}. Give another number of parts, or their lengths."
            )
        if isinstance(self.parts, tuple) and sum(self.parts) != length:
            raise ValueError(
                f"{has}: {where} is not cut by the lengths {shown(self.parts)}, which add up to {sum(self.parts)}. "
                f"Give lengths that add up to {length}."
            )

    def shapes(self, shape: Sequence[int]) -> list[Stack]:
        """The stacks of a weight of this shape, each as (matrices, rows, columns)."""
        stacks, first = shape[0] if self.stacked else 1, int(self.stacked)
        found = []
        for count, length in self._runs(shape):
            sides = [length if dim == self.dim else side for dim, side in enumerate(shape[first:])]
            rows, columns = sides[0], math.prod(sides[1:])
            found.append((stacks * count, columns, rows) if self.inputs_first else (stacks * count, rows, columns))
        return found

    @property
    def keep_order(self) -> bool:
        """Whether they lie one after another in a contiguous weight, and all are of one shape."""
        return self.dim == 0 and not self.inputs_first and (isinstance(self.parts, int) or len(set(self.parts)) == 1)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The stacks (n, rows, columns) of a weight, in the order of `shapes`; copies only where strides need it.

        Together they have each of its elements once.
        """
        shapes = self.shapes(tensor.shape)
        if self.inputs_first:
            pieces = zip(shapes, self._pieces(tensor), strict=True)
            return [piece.reshape(n, columns, rows).transpose(1, 2) for (n, rows, columns), piece in pieces]
        return [piece.reshape(stack) for stack, piece in zip(shapes, self._pieces(tensor), strict=True)]

    def scatter(self, stacks: Sequence[Tensor | None], tensor: Tensor) -> None:
        """Write stacks, as `gather` gives them, to their places in a weight; where there is none, that stays."""
        for stack, piece in zip(stacks, self._pieces(tensor), strict=True):
            if stack is None:
                continue
            piece.copy_((stack.transpose(1, 2) if self.inputs_first else stack).reshape(piece.shape))

    def _runs(self, shape: Sequence[int]) -> Iterator[tuple[int, int]]:
        """The parts as (count, length), equal ones next to each other together."""
        if isinstance(self.parts, int):
            yield self.parts, shape[self.dim + self.stacked] // self.parts
            return
        for length, alike in groupby(self.parts):
            yield len(list(alike)), length

    def _pieces(self, tensor: Tensor) -> Iterator[Tensor]:
        """Views of a weight, for each stack one: (matrices of the stack, if it is one, parts, *sides)."""
        dim, start = self.dim + self.stacked, 0
        for count, length in self._runs(tensor.shape):
            run = tensor.narrow(dim, start, count * length).unflatten(dim, (count, length))
            start += count * length
            yield run.movedim(dim, int(self.stacked))


# A number of equal parts, the lengths of parts, or all that there is to say; of all parameters, or by key.
Declared = int | tuple[int, ...] | Matrices
Parts = Declared | Mapping[str, Declared] | None


def _is_count(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


# A weight of which nothing is said.
ONE_MATRIX = Matrices()


def shape_of(space: Space, shape: Sequence[int], matrices: Matrices | None = None) -> tuple[int, ...]:
    """The shape of a tensor with one value for each of a space, beside a weight of this shape.

    `matrices` are those that a rule of matrices sees; without them they are those of the last two dimensions.
    """
    if matrices is None or not (space in PAIRS or space.is_narrow):
        return space.shape(shape)
    count, rows, columns = matrices.shapes(shape)[0]
    if space in PAIRS:
        side = rows if space is ROW_PAIRS else columns
        return (side, side) if count == 1 else (count, side, side)
    lines = 1 + int(matrices.stacked)
    if space is ROWS:
        return (*shape[:lines], *[1] * (len(shape) - lines))
    return (count, columns) if space is COLUMNS else (count,)
