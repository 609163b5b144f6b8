"""States of one byte a number, with a scale for each block of 256: small floats, in graph operations.

A number is kept relative to the largest of its block. What may be negative (`torch.int8`) has a sign, four bits of
exponent and three of mantissa, of its magnitude plus 2^-15: floats that become evenly spaced, by 2^-18, towards zero.
What is never negative (`torch.uint8`) has five and three, down to 2^-30, and less only for zero itself, so that second
moments of small gradients do not vanish beside large ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from neon.engine.program.graph import Node, apply, node
from neon.engine.program.meanings import BLOCK as BLOCK

# Below this a block is zero: its reciprocal would overflow.
_LEAST_PEAK = 2.0**-120


@dataclass(frozen=True)
class BlockCodec:
    """A small float of `exponent` and `mantissa` bits, and a sign or none; its largest value stands for the block's.

    The lowest bits of a float32's exponent are the small float's, for all of them end with the same: that of 1.
    """

    exponent: int
    mantissa: int
    signed: bool

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

    def decode(self, name: str) -> Node:
        """The value of an element of the state `name`."""
        stored = node("load_bits", label=name, kind="uint")
        magnitude = apply("uint_and", stored, self.largest_code)
        value = apply("from_bits", apply("uint_or", apply("uint_shl", magnitude, 23 - self.mantissa), self._least))
        if self.signed:
            sign = apply("uint_shl", apply("uint_and", stored, 0x80), 24)
            value = apply("from_bits", apply("uint_or", apply("bits", value - self._offset), sign))
        else:
            value = apply("where", apply("uint_less", magnitude, 1), 0.0, value)
        return value * node("load_block", label=scale_name(name))

    def encode(self, value: Node, random: Node) -> tuple[Node, Node]:
        """The code of an element and the scale of its block; NaN, and a negative number of no sign, spoil the block."""
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
        return code, scale

    def _code(self, bits: Node, random: Node) -> Node:
        """The code above or below a float32."""
        dropped = 23 - self.mantissa
        rounded = apply("uint_shr", apply("uint_add", bits, apply("uint_shr", random, 32 - dropped)), dropped)
        return apply("uint_and", rounded, self.largest_code)


def scale_name(state: str) -> str:
    """The tensor of a state's scales."""
    return f"{state}_scale"


BLOCK_CODECS: dict[torch.dtype, BlockCodec] = {
    torch.int8: BlockCodec(exponent=4, mantissa=3, signed=True),
    torch.uint8: BlockCodec(exponent=5, mantissa=3, signed=False),
}
