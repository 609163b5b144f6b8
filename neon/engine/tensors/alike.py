"""Kinds: what goes by the type, sizes and strides of a tensor alone, found once for all tensors that are alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


class Kind:
    """What dense tensors of one dtype, device, shape and strides have in common; `Kind.of` gives one object for them.

    `bytes` are those from the first of a tensor's elements to the end of the last. Tensors with equal `strides` and
    shape have the same element at the same offset: what sizes of one have no say in is written alike.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device, shape: Sequence[int], strides: Sequence[int]) -> None:
        self.dtype, self.device, self.shape = dtype, device, tuple(shape)
        self.elements = math.prod(shape)
        sides = [*zip(strides, shape, strict=True)]
        contiguous = [math.prod(shape[place + 1 :]) for place in range(len(shape))]
        self.is_contiguous = not self.elements or all(
            size == 1 or stride == dense for (stride, size), dense in zip(sides, contiguous, strict=True)
        )
        self.strides = (
            tuple(contiguous) if self.is_contiguous else tuple(stride if size != 1 else 0 for stride, size in sides)
        )
        covered, self.overlaps_itself, self.is_dense = 1, False, True
        for stride, size in sorted((stride, size) for stride, size in sides if size > 1):
            self.overlaps_itself |= stride < covered
            self.is_dense &= stride == covered
            covered += stride * (size - 1)
        self.is_dense |= self.is_contiguous
        self.overlaps_itself &= self.elements > 0
        self.bytes = (sum(stride * (size - 1) for stride, size in sides) + 1) * dtype.itemsize if self.elements else 0

    @staticmethod
    def of(tensor: Tensor) -> Kind:
        """The kind of a dense tensor; raises what torch raises where a tensor has no strides."""
        return _kind(tensor.dtype, tensor.device, tensor.shape, tensor.stride())

    def laid_out_like(self, other: Kind) -> bool:
        """Whether the same offset holds the same element of both."""
        return self is other or (self.strides == other.strides and self.shape == other.shape)

    def is_read_in(self, tensor: Tensor) -> bool:
        """Whether a tensor of this shape holds its elements where one of this kind does, and as they are."""
        alike = (self.is_contiguous and tensor.is_contiguous()) or self.laid_out_like(Kind.of(tensor))
        return alike and not tensor.is_neg()


_kind = lru_cache(maxsize=4096)(Kind)


@dataclass(eq=False)
class Form:
    """What items of a plan that are treated alike have in common: `kinds` of the parameter and of what is kept."""

    kinds: tuple[Kind, ...] = ()


UNKNOWN = Form()
