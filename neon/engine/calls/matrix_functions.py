"""The functions of matrices that rules may call, each in one entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from neon.engine.calls.orthogonalize import orthogonalized


@dataclass(frozen=True)
class Call:
    """A function of stacks of matrices, of numbers and, by name, of choices.

    `temporaries` says how many bytes it takes for so many matrices of so many rows and columns of this element size.
    """

    function: Callable[..., Any]
    temporaries: Callable[[int, int, int, int], int]


def _three_times(n: int, rows: int, columns: int, size: int) -> int:
    return 3 * n * rows * columns * size


CALLS = {"orthogonalize": Call(orthogonalized, _three_times)}
