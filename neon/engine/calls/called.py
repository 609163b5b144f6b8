"""The functions of matrices that rules may call, each in one entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neon.engine.calls.coefficients import SCALES, schedule
from neon.engine.calls.eigenbasis import eigenbasis, refined_in_place
from neon.engine.calls.inverse_root import inverse_root
from neon.engine.calls.orthogonalize import orthogonalize, temporaries
from neon.engine.calls.turned import gram, restored, rotated
from neon.engine.calls.ways import processor, way_of


@dataclass(frozen=True)
class Call:
    """A function of stacks of matrices, of numbers and, by name, of choices.

    `temporaries` says how many bytes it takes beside its result for so many matrices of so many rows and columns, of a
    dtype and on a device, with these choices. `in_place`: it may be given the memory for its result as `out`, which its
    first operand may be.
    """

    function: Callable[..., Any]
    temporaries: Callable[..., int]
    in_place: bool = False


def _orthogonalized(
    x: Tensor,
    eps: float,
    steps: float,
    *numbers: float,
    coefficients: str | None,
    scale: str | None,
    units: str | None,
    out: Tensor | None = None,
) -> Tensor:
    count, rows, columns = x.shape
    way = way_of(count, rows, columns, x.dtype, x.device, units or processor())
    out = orthogonalize(x, schedule(coefficients or numbers, int(steps)), eps=eps, way=way, out=out)
    factor = SCALES[scale or "none"](rows, columns) if x.numel() else 1.0
    return out if factor == 1 else out.mul_(factor)


def _orthogonalizing(
    shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device, *, units: str | None, **_: Any
) -> int:
    way = way_of(*shape, dtype, device, units or processor())
    return temporaries(*shape, way, dtype.itemsize, device)


def _rotated(x: Tensor, *bases: Tensor, left: bool, right: bool) -> Tensor:
    return rotated(x, *_sides(bases, left=left, right=right))


def _restored(x: Tensor, *bases: Tensor, left: bool, right: bool) -> Tensor:
    return restored(x, *_sides(bases, left=left, right=right))


def _sides(bases: Sequence[Tensor], *, left: bool, right: bool) -> tuple[Tensor | None, Tensor | None]:
    return (bases[0] if left else None, bases[-1] if right else None)


def _basis_of(m: Tensor, basis: Tensor, first: float, when: float, floor: float) -> Tensor:
    if first:
        return eigenbasis(m, floor)
    return refined_in_place(m, basis, floor) if when else basis


def _root_of(m: Tensor, root: Tensor, exponent: float, eps: float, when: float, *, place: Any) -> Tensor:
    return inverse_root(m, exponent, eps, place) if when else root


def _results(shape: tuple[int, int, int], dtype: torch.dtype, _: torch.device, **__: Any) -> int:
    """A result of a matrix's shape, and one on the way there."""
    return 2 * math.prod(shape) * dtype.itemsize


def _squares(one: int) -> Callable[..., int]:
    """So many squares of the longer side, beside its own result, for one matrix after another; or all results at once.

    For a root LAPACK has three beside what becomes its eigenvectors: the matrix without bad numbers, and twice as much
    to work in.
    """

    def bytes_of(shape: tuple[int, int, int], dtype: torch.dtype, _: torch.device, **__: Any) -> int:
        return max(one, shape[0]) * max(shape[1:]) ** 2 * dtype.itemsize

    return bytes_of


CALLS = {
    "orthogonalize": Call(_orthogonalized, _orthogonalizing, in_place=True),
    "gram": Call(gram, _squares(1)),
    "rotated": Call(_rotated, _results),
    "restored": Call(_restored, _results),
    "basis_of": Call(_basis_of, _squares(6)),
    "root_of": Call(_root_of, _squares(3)),
}
