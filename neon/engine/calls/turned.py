"""Products of a matrix with itself, and with orthogonal bases of its rows and its columns."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from neon.engine.calls.one_by_one import each


def gram(x: Tensor, over: Literal["rows", "columns"]) -> Tensor:
    """x·xᵀ of (n, r, c), a number for each pair of rows: (n, r, r); or xᵀ·x, one for each of columns: (n, c, c)."""
    if over not in ("rows", "columns"):
        raise ValueError(f"over must be 'rows' or 'columns'. Received: over={over!r}.")
    return each(lambda a: a @ a.T if over == "rows" else a.T @ a, x)


def rotated(x: Tensor, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
    """leftᵀ·x·right: x in the bases that are the columns of `left` and `right`. A side of None stays as it is."""
    if left is not None:
        x = each(lambda q, a: q.T @ a, left, x)
    return x if right is None else each(lambda a, q: a @ q, x, right)


def restored(x: Tensor, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
    """left·x·rightᵀ, the way back of `rotated`: of symmetric matrices both are the same."""
    if left is not None:
        x = each(lambda q, a: q @ a, left, x)
    return x if right is None else each(lambda a, q: a @ q.T, x, right)
