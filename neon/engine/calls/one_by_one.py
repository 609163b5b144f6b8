"""The matrices of a stack, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def each(function: Callable[..., Any], *stacks: Tensor) -> Any:
    """`function` of one matrix of every stack after another; its tensors are stacked again.

    A matrix has the same bits alone and among others, which a batched product has not: it takes another kernel for
    another count. Each is copied first where its address is no multiple of 64 bytes, as of a copy it is: BLAS sums in
    another order there. Functions write to none of them.
    """
    found = [function(*map(_alone, matrices)) for matrices in zip(*stacks, strict=True)]
    if isinstance(found[0], Tensor):
        return _stacked(found)
    return tuple(_stacked(matrices) for matrices in zip(*found, strict=True))


def _alone(matrix: Tensor) -> Tensor:
    if matrix.is_contiguous() and matrix.data_ptr() % 64 == 0:
        return matrix
    return matrix.clone(memory_format=torch.contiguous_format)


def _stacked(matrices: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return matrices[0].unsqueeze(0) if len(matrices) == 1 else torch.stack(tuple(matrices))


def without_bad(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix, or the identity where it is not finite, of which LAPACK may raise; and whether it is finite."""
    good = torch.isfinite(matrix).all()
    return torch.where(good, matrix, torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)), good
