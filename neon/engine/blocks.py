"""States of one byte a number, with a scale for each block of 256: small floats, in graph operations.

A number is a small float of its own, relative to the largest of its block: with a sign, four bits of
exponent and three of mantissa, with subnormals down to 2^-17 (`torch.int8`); of what is never negative, five
and three (`torch.uint8`), down to 2^-30 and never less but zero itself, so that second moments of small
gradients do not vanish beside large ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from neon.engine.graph import Node, apply, node

BLOCK = 256
# Below this a block is zero: its reciprocal would overflow.
_LEAST_PEAK = 2.0**-120


@dataclass(frozen=True)
class BlockCodec:
    """A small float of `exponent` and `mantissa` bits, and a sign or none; its largest value stands for the block's."""

    exponent: int
    mantissa: int
    signed: bool

    @property
    def largest_code(self) -> int:
        return (1 << (self.exponent + self.mantissa)) - 1

    @property
    def largest(self) -> float:
        """The value of the largest code: its exponent is 0."""
        return 2 - 2.0**-self.mantissa

    @property
    def _lowest(self) -> int:
        """The biased float32 exponent of the smallest number that is not subnormal."""
        return 128 - (self.largest_code >> self.mantissa)

    def decode(self, name: str) -> Node:
        """The value of an element of the state `name`."""
        stored = node("load_bits", label=name, kind="uint")
        magnitude = apply("uint_and", stored, self.largest_code)
        shifted = apply("uint_shl", magnitude, 23 - self.mantissa)
        value = apply("from_bits", apply("uint_add", shifted, (self._lowest - 1) << 23))
        if self.signed:
            # A subnormal, as the distance of a number from the smallest that is none: both are exact.
            smallest = 2.0 ** (self._lowest - 127)
            tiny = apply("from_bits", apply("uint_or", shifted, self._lowest << 23)) - smallest
            value = apply("where", apply("uint_less", magnitude, 1 << self.mantissa), tiny, value)
            sign = apply("uint_shl", apply("uint_and", stored, 0x80), 24)
            value = apply("from_bits", apply("uint_or", apply("bits", value), sign))
        else:
            value = apply("where", apply("uint_less", magnitude, 1), 0.0, value)
        return value * node("load_block", label=scale_name(name))

    def encode(self, value: Node, random: Node) -> tuple[Node, Node]:
        """The code of an element and the scale of its block; NaN, and a negative number of no sign, spoil the block."""
        peak = node("block_peak", (value,), label="signed" if self.signed else "unsigned")
        # A little less than the reciprocal, so that no rounding brings the peak above the largest value.
        below = self.largest * (1 - 2.0**-22)
        inverse = apply("where", apply("less", _LEAST_PEAK, peak), below / peak, 0.0)
        code = self._code(apply("bits", (abs(value) if self.signed else value) * inverse), random)
        if self.signed:
            sign = apply("uint_shr", apply("uint_and", apply("bits", value), 0x80000000), 24)
            code = apply("uint_or", code, sign)
        scale = apply("where", peak >= 0.0, peak * (1.0 / self.largest), float("nan"))
        return code, scale

    def _code(self, bits: Node, random: Node) -> Node:
        """The code above or below a magnitude, relative to the largest value, by the bits of its float32."""
        dropped, lowest = 23 - self.mantissa, self._lowest << 23
        # What divides must not become zero, or a step by m/(√0 + ε) would be huge: there the first code is the least.
        counted = bits if self.signed else apply("uint_where", apply("uint_less", bits, lowest), lowest, bits)
        shifted = apply("uint_add", counted, (1 << 23) - lowest & 0xFFFFFFFF)
        code = apply("uint_shr", apply("uint_add", shifted, apply("uint_shr", random, 32 - dropped)), dropped)
        if not self.signed:
            return apply("uint_where", apply("uint_less", bits, 1), 0, code)
        # Of what is no subnormal the conversion may overflow: it is not taken.
        steps = apply("to_uint", apply("from_bits", bits) * 2.0 ** (21 + 127 + self.mantissa - self._lowest))
        tiny = apply("uint_shr", apply("uint_add", steps, apply("uint_shr", random, 11)), 21)
        return apply("uint_where", apply("uint_less", bits, lowest), tiny, code)


def scale_name(state: str) -> str:
    """The tensor of a state's scales."""
    return f"{state}_scale"


BLOCK_CODECS: dict[torch.dtype, BlockCodec] = {
    torch.int8: BlockCodec(exponent=4, mantissa=3, signed=True),
    torch.uint8: BlockCodec(exponent=5, mantissa=3, signed=False),
}
