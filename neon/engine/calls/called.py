"""The functions of matrices that rules may call, each in one entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neon.engine.calls.orthogonalize import orthogonalize, temporaries
from neon.engine.calls.schedules import SCALES, schedule
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


CALLS = {"orthogonalize": Call(_orthogonalized, _orthogonalizing, in_place=True)}
