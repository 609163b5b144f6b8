"""Memory layout: elementwise work needs no shapes, only tensors that are laid out alike."""

from __future__ import annotations

import torch
from torch import Tensor

from neon.engine.tensors.alike import Kind


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one range of memory without gaps or overlaps, in whatever order."""
    return Kind.of(tensor).is_dense


def same_layout(a: Tensor, b: Tensor) -> bool:
    """Whether the same offset holds the same element of both (sizes of one have no say)."""
    return Kind.of(a).laid_out_like(Kind.of(b))


def like_layout(model: Tensor, source: Tensor) -> Tensor:
    """A copy of `source` in the layout of the dense tensor `model`."""
    copy = torch.empty_strided(model.shape, model.stride(), dtype=source.dtype, device=source.device)
    return copy.copy_(source.detach())


def flat(tensor: Tensor) -> Tensor:
    """The memory of a dense tensor as a vector."""
    return tensor.detach().as_strided((tensor.numel(),), (1,), tensor.storage_offset())
