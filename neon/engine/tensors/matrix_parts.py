"""Matrices: which matrices a parameter is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Matrices:
    """The matrices of a parameter: one, of its first dimension by all others."""

    def shapes(self, shape: Sequence[int]) -> list[tuple[int, int, int]]:
        """How many matrices there are, and of how many rows and columns, for each stack of equal ones."""
        return [(1, shape[0], math.prod(shape[1:]))]

    @property
    def in_order(self) -> bool:
        """Whether the elements of a tensor are those of its matrices, one after another."""
        return True

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The stacks of a tensor: views of it where its memory allows."""
        return [tensor.reshape(1, tensor.shape[0], -1)]

    def scatter(self, stacks: Mapping[int, Tensor], tensor: Tensor) -> None:
        """Write stacks, by their places among all, to where they belong in a tensor."""
        tensor.copy_(stacks[0].view(tensor.shape))


ONE_MATRIX = Matrices()
