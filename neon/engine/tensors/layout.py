"""Memory layout: elementwise work needs no shapes, only tensors that are laid out alike."""

from __future__ import annotations

import torch
from torch import Tensor


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one range of memory without gaps or overlaps, in whatever order."""
    if tensor.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted((st, si) for st, si in zip(tensor.stride(), tensor.shape, strict=True) if si != 1):
        if stride != expected:
            return False
        expected *= size
    return True


def same_layout(a: Tensor, b: Tensor) -> bool:
    """Whether the same offset holds the same element of both (sizes of one have no say)."""
    if a.shape != b.shape:
        return False
    if a.is_contiguous() and b.is_contiguous():
        return True
    strides = zip(a.stride(), b.stride(), a.shape, strict=True)
    return all(x == y or size == 1 for x, y, size in strides)


def like_layout(model: Tensor, source: Tensor) -> Tensor:
    """A copy of `source` in the layout of the dense tensor `model`."""
    copy = torch.empty_strided(model.shape, model.stride(), dtype=source.dtype, device=source.device)
    return copy.copy_(source.detach())


def flat(tensor: Tensor) -> Tensor:
    """The memory of a dense tensor as a vector."""
    return tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())
