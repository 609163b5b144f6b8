"""What a storage format is: decoded on load, encoded on store, seen by no rule.

A format is written in graph operations on 32-bit words, so that every backend has it, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from neon.engine.program.graph import Node
from neon.engine.program.spaces import Space


@dataclass(frozen=True)
class Slot:
    """One tensor: its name in a kernel, where it lies in `state[p]`, what it is kept as and has one number for.

    `start` is what stands for the number that it starts at, or "weight"; `block` numbers of it are encoded together.
    Of an auxiliary tensor `auxiliary_of` names the one whose format needs it.
    """

    name: str
    path: tuple[str, ...]
    dtype: torch.dtype
    space: Space
    start: float | str
    block: int = 1
    auxiliary_of: str | None = None

    def __post_init__(self) -> None:
        every = (self.name, self.path, self.dtype, self.space, self.start, self.block, self.auxiliary_of)
        object.__setattr__(self, "_hash", hash(every))  # once: it is a key of what is kept of each parameter

    def __hash__(self) -> int:
        return self._hash  # type: ignore[attr-defined]


class Format:
    """How the numbers of a tensor are kept. `block` numbers are encoded together, with auxiliary tensors.

    `name` is what users call it, `dtype` that of the tensor.
    """

    name: str
    dtype: torch.dtype
    signed: bool = True
    block: ClassVar[int] = 1

    def auxiliary(self, tensor: str, start: float = 0.0) -> tuple[Slot, ...]:
        """The auxiliary tensors of one of this format that starts at a number."""
        return ()

    def decode(self, tensor: str) -> Node:
        """The value of an element."""
        raise NotImplementedError

    def encode(self, tensor: str, value: Node, random: Node | None, width: int | None = None) -> dict[str, Node]:
        """What is stored for a value, by the names of tensors: rounded at random, or to nearest without random bits.

        `width` is the number of mantissa bits that a value is rounded to first, where that is less than the format's.
        """
        raise NotImplementedError

    def stored(self, number: float) -> float:
        """What a number is in a tensor of this format."""
        return number
