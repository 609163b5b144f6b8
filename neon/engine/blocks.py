"""States of one byte a number, with a scale for each block of 256: small floats, in graph operations.

A number is a small float of its own, relative to the largest of its block: with a sign, four bits of
exponent and three of mantissa (`torch.int8`); of what is never negative, five and three (`torch.uint8`),
which spans 2^-33, so that second moments of small gradients do not vanish beside large ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from neon.engine.graph import Node, apply, node, word

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
        normal = apply("from_bits", apply("uint_add", shifted, (self._lowest - 1) << 23))
        # A subnormal, as the distance of a number from the smallest that is none: both are exact.
        smallest = 2.0 ** (self._lowest - 127)
        tiny = apply("from_bits", apply("uint_or", shifted, self._lowest << 23)) - smallest
        value = apply("where", apply("uint_less", magnitude, 1 << self.mantissa), tiny, normal)
        if self.signed:
            sign = apply("uint_shl", apply("uint_and", stored, 0x80), 24)
            value = apply("from_bits", apply("uint_or", apply("bits", value), sign))
        return value * node("load_block", label=scale_name(name))

    def encode(self, value: Node, random: Node | None) -> tuple[Node, Node]:
        """The code of an element and the scale of its block; NaN, and a negative number of no sign, spoil the block."""
        peak = node("block_peak", (value,), label="signed" if self.signed else "unsigned")
        usable = apply("less", _LEAST_PEAK, peak)
        inverse = apply("where", usable, self.largest / peak, 0.0)
        code = self._code(apply("bits", (abs(value) if self.signed else value) * inverse), random)
        if self.signed:
            sign = apply("uint_shr", apply("uint_and", apply("bits", value), 0x80000000), 24)
            code = apply("uint_or", code, sign)
        scale = apply("where", peak >= 0.0, peak * (1.0 / self.largest), float("nan"))
        return code, scale

    def _code(self, bits: Node, random: Node | None) -> Node:
        """The code of a magnitude, relative to the largest value, by the bits of its float32: nearest or at random."""
        dropped, value = 23 - self.mantissa, apply("from_bits", bits)
        step = 2.0 ** (self._lowest - 127 - self.mantissa)  # between subnormals
        shift = -((self._lowest - 1) << 23)
        if random is None:
            normal = apply("uint_add", bits, shift + (1 << (dropped - 1)) & 0xFFFFFFFF)
            # Beside a number whose last bit is one step, addition rounds to steps.
            beside = step * 2.0**23
            tiny = apply("uint_add", apply("bits", value + beside), -_bits(beside) & 0xFFFFFFFF)
        else:
            shifted = apply("uint_add", bits, shift & 0xFFFFFFFF)
            normal = apply("uint_add", shifted, apply("uint_shr", random, 32 - dropped))
            steps = apply("to_uint", apply("minimum", value * (2.0**21 / step), 2.0**30))
            tiny = apply("uint_shr", apply("uint_add", steps, apply("uint_shr", random, 11)), 21)
        code = apply(
            "uint_where", apply("uint_less", bits, self._lowest << 23), tiny, apply("uint_shr", normal, dropped)
        )
        if random is not None:  # the largest may come out of the division a little larger
            code = apply("uint_where", apply("uint_less", code, self.largest_code), code, self.largest_code)
        if self.signed:
            return code
        # What divides must not become zero: a step by m/(√0 + ε) would be huge.
        least = apply("uint_where", apply("uint_less", word(0), bits), 1, 0)
        return apply("uint_where", apply("uint_less", code, least), least, code)


def _bits(value: float) -> int:
    return int(torch.tensor(value, dtype=torch.float32).view(torch.int32)) & 0xFFFFFFFF


def scale_name(state: str) -> str:
    """The tensor of a state's scales."""
    return f"{state}_scale"


BLOCK_CODECS: dict[torch.dtype, BlockCodec] = {
    torch.int8: BlockCodec(exponent=4, mantissa=3, signed=True),
    torch.uint8: BlockCodec(exponent=5, mantissa=3, signed=False),
}
