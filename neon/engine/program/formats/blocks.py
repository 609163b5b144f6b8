"""States of one byte a number, with a scale for each block of 256: small floats, in graph operations.

A number is kept relative to the largest of its block. What may be negative (`torch.int8`) has a sign, four bits of
exponent and three of mantissa, of its magnitude plus 2^-15: floats that become evenly spaced, by 2^-18, towards zero.
What is never negative (`torch.uint8`) has five and three, down to 2^-30, and less only for zero itself, so that second
moments of small gradients do not vanish beside large ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from neon.engine.program.formats.format import Format, Slot
from neon.engine.program.graph import Node, apply, node
from neon.engine.program.meanings import BLOCK as BLOCK
from neon.engine.program.spaces import Shape, Space

# Below this a block is zero: its reciprocal would overflow.
_LEAST_PEAK = 2.0**-120


def scale_shape(shape: Sequence[int]) -> Shape:
    """A scale for each block; by rows, as the parameter may be sharded, where blocks do not reach over them."""
    rows, row = (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))
    if len(shape) > 1 and row % BLOCK == 0:
        return rows, row // BLOCK
    return (-(-rows * row // BLOCK),)


BLOCK_OF_ELEMENTS = Space("block", shape=scale_shape)


def scale_name(state: str) -> str:
    """The tensor of a state's scales."""
    return f"{state}_scale"


@dataclass(frozen=True)
class SmallFloat(Format):
    """A small float of `exponent` and `mantissa` bits, and a sign or none; its largest value stands for the block's.

    The lowest bits of a float32's exponent are the small float's, for all of them end with the same: that of 1.
    """

    dtype: torch.dtype
    exponent: int
    mantissa: int
    signed: bool
    name: str = field(default="int8", init=False)
    block: ClassVar[int] = BLOCK

    @property
    def largest_code(self) -> int:
        return (1 << (self.exponent + self.mantissa)) - 1

    @property
    def largest(self) -> float:
        """The value of the largest code."""
        return 2 - 2.0**-self.mantissa - self._offset

    @property
    def _least(self) -> int:
        """The bits of the float32 whose code is zero."""
        return (128 - (1 << self.exponent)) << 23

    @property
    def _offset(self) -> float:
        """What is added to a magnitude: the float32 whose code is zero, or nothing where zero has a code of its own."""
        return 2.0 ** (1 - (1 << self.exponent)) if self.signed else 0.0

    def auxiliary(self, tensor: str, start: float = 0.0) -> tuple[Slot, ...]:
        scale, path = abs(start) / self.largest, ("scales", tensor)
        return (Slot(scale_name(tensor), path, torch.float32, BLOCK_OF_ELEMENTS, scale, auxiliary_of=tensor),)

    def stored(self, number: float) -> float:
        code = self.largest_code if number else 0
        return code - 0x80 if self.signed and number < 0 else code  # the bit of the sign, in a signed byte

    def decode(self, tensor: str) -> Node:
        stored = node("load_bits", label=tensor, kind="uint")
        magnitude = apply("uint_and", stored, self.largest_code)
        value = apply("from_bits", apply("uint_or", apply("uint_shl", magnitude, 23 - self.mantissa), self._least))
        if self.signed:
            sign = apply("uint_shl", apply("uint_and", stored, 0x80), 24)
            value = apply("from_bits", apply("uint_or", apply("bits", value - self._offset), sign))
        else:
            value = apply("where", apply("uint_less", magnitude, 1), 0.0, value)
        return value * node("load_block", label=scale_name(tensor))

    def encode(self, tensor: str, value: Node, random: Node | None, width: int | None = None) -> dict[str, Node]:
        """NaN, and a negative number where there is no sign, spoil the block."""
        assert random is not None
        peak = node("block_peak", (value,), label="signed" if self.signed else "unsigned")
        # A little less than the reciprocal, so that no rounding brings the peak above the largest value.
        below = self.largest * (1 - 2.0**-22)
        inverse = apply("where", apply("less", _LEAST_PEAK, peak), below / peak, 0.0)
        if self.signed:
            code = self._code(apply("bits", abs(value) * inverse + self._offset), random)
            sign = apply("uint_shr", apply("uint_and", apply("bits", value), 0x80000000), 24)
            code = apply("uint_or", code, sign)
        else:
            bits, lowest = apply("bits", value * inverse), self._least + (1 << 23)
            # What divides must not become zero, or a step by m/(√0 + ε) would be huge.
            counted = apply("uint_where", apply("uint_less", bits, lowest), lowest, bits)
            code = apply("uint_where", apply("uint_less", bits, 1), 0, self._code(counted, random))
        scale = apply("where", peak >= 0.0, peak * (1.0 / self.largest), float("nan"))
        return {tensor: code, scale_name(tensor): scale}

    def _code(self, bits: Node, random: Node) -> Node:
        """The code above or below a float32."""
        dropped = 23 - self.mantissa
        rounded = apply("uint_shr", apply("uint_add", bits, apply("uint_shr", random, 32 - dropped)), dropped)
        return apply("uint_and", rounded, self.largest_code)


BLOCKS = (
    SmallFloat(torch.int8, exponent=4, mantissa=3, signed=True),
    SmallFloat(torch.uint8, exponent=5, mantissa=3, signed=False),
)
