"""What a storage format is: decoded on load, encoded on store, seen by no rule.

A format is written in graph operations on 32-bit words, so that every backend has it, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from neon.engine.program.declared import Space
from neon.engine.program.graph import Node


@dataclass(frozen=True)
class Auxiliary:
    """A tensor that a format needs beside the one that it keeps; `path` is where it lies in `state[p]`."""

    name: str
    path: tuple[str, ...]
    dtype: torch.dtype
    space: Space


class Format:
    """How the numbers of a tensor are kept. `block` numbers are encoded together, with auxiliary tensors.

    `name` is what users call it, `dtype` that of the tensor.
    """

    name: str
    dtype: torch.dtype
    signed: bool = True
    block: ClassVar[int] = 1

    def auxiliary(self, tensor: str) -> tuple[Auxiliary, ...]:
        """The auxiliary tensors of one of this format."""
        return ()

    def decode(self, tensor: str) -> Node:
        """The value of an element."""
        raise NotImplementedError

    def encode(self, tensor: str, value: Node, random: Node | None, width: int | None = None) -> dict[str, Node]:
        """What is stored for a value, by the names of tensors: rounded at random, or to nearest without random bits.

        `width` is the number of mantissa bits that a value is rounded to first, where that is less than the format's.
        """
        raise NotImplementedError

    def stored(self, number: float) -> tuple[float, ...]:
        """What a number is in a tensor of this format, and in its auxiliary ones."""
        return (number,)
