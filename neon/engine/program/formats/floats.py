"""Floats of 64, 32 and 16 bits: decoded to float32 (float64 for its own), rounded to nearest or at random."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from neon.engine.program.formats.format import Format
from neon.engine.program.graph import Node, apply, node, word

_SIGN, _INFINITY, QUIET = 0x80000000, 0x7F800000, 0x00400000


_add, _and, _or, _shl, _shr, _below, _where = (
    partial(apply, f"uint_{name}") for name in ("add", "and", "or", "shl", "shr", "less", "where")
)


def _rounding(bits: Node, dropped: int, random: Node | None) -> Node:
    """What to add to the bits of a number before its last `dropped` go: to nearest even, or at random."""
    if random is None:
        return _add(_and(_shr(bits, dropped), 1), (1 << (dropped - 1)) - 1)
    return _shr(random, 32 - dropped)


def _rounded_bits(x: Node, mantissa: int, random: Node | None) -> Node:
    """The bits of a float32, of which only those of `mantissa` stored bits count; infinity and NaN stay."""
    bits, dropped = apply("bits", x), 23 - mantissa
    rounding = _rounding(bits, dropped, random)
    if random is not None:
        # A finite value rounded at random stays finite: infinity is no neighbour that averages out.
        largest = (2 - 2.0**-mantissa) * 2.0**127
        rounding = _where(apply("less_equal", abs(x), largest), rounding, 0)
    # A NaN whose payload sits in the dropped bits would become infinity: set the quiet bit.
    return _where(apply("equal", x, x), _add(bits, rounding), _or(bits, QUIET))


def round_mantissa(x: Node, mantissa: int, random: Node | None) -> Node:
    """A float32 rounded to `mantissa` stored bits, still a float32."""
    return apply("from_bits", _and(_rounded_bits(x, mantissa, random), -1 << (23 - mantissa)))


def _decode_bfloat16(stored: Node) -> Node:
    return apply("from_bits", _shl(stored, 16))


def _encode_bfloat16(x: Node, random: Node | None) -> Node:
    return _shr(_rounded_bits(x, 7, random), 16)


def _decode_float16(stored: Node) -> Node:
    magnitude = _shl(_and(stored, 0x7FFF), 13)
    # Rebias the exponent by 127 − 15 = 112 with an exact multiplication, which serves subnormals too.
    finite = apply("bits", apply("mul", apply("from_bits", magnitude), 2.0**112))
    special = _or(magnitude, _INFINITY)
    bits = _where(_below(magnitude, 0x7C00 << 13), finite, special)
    return apply("from_bits", _or(bits, _shl(_and(stored, 0x8000), 16)))


def _encode_float16(x: Node, random: Node | None) -> Node:
    bits = apply("bits", x)
    magnitude = _and(bits, ~_SIGN)
    normal = _shr(_add(_add(magnitude, _rounding(magnitude, 13, random)), -(112 << 23)), 13)
    value = apply("from_bits", magnitude)
    if random is None:
        # Adding ½ puts the last bit of a subnormal half at the last bit of a float32, which rounds it.
        half = 0x3F000000
        tiny = _add(apply("bits", apply("add", value, 0.5)), -half)
    else:
        scaled = apply("to_uint", apply("minimum", apply("mul", value, 2.0**45), 2.0**31))
        tiny = _shr(_add(scaled, _shr(random, 11)), 21)
    rounded = _where(_below(magnitude, 113 << 23), tiny, normal)
    infinity_or_largest = 0x7C00 if random is None else 0x7BFF
    rounded = _where(_below(word(infinity_or_largest), rounded), infinity_or_largest, rounded)
    # Past the largest half the shifted exponent has left its field: decide on the float32's own bits.
    rounded = _where(_below(magnitude, 144 << 23), rounded, infinity_or_largest)
    special = _where(_below(word(_INFINITY), magnitude), 0x7E00, 0x7C00)
    rounded = _where(_below(magnitude, _INFINITY), rounded, special)
    return _or(rounded, _shr(_and(bits, _SIGN), 16))


@dataclass(frozen=True)
class Float(Format):
    """A float of `mantissa` stored bits; `decoded` and `encoded` are None where arithmetic has the format itself."""

    dtype: torch.dtype
    mantissa: int
    decoded: Callable[[Node], Node] | None = None
    encoded: Callable[[Node, Node | None], Node] | None = None

    @property
    def name(self) -> str:  # type: ignore[override]
        return str(self.dtype).removeprefix("torch.")

    def decode(self, tensor: str) -> Node:
        if self.decoded is None:
            return node("load", label=tensor)
        return self.decoded(node("load_bits", label=tensor, kind="uint"))

    def encode(self, tensor: str, value: Node, random: Node | None, width: int | None = None) -> dict[str, Node]:
        if random is not None and width is not None and width < self.mantissa:
            value = round_mantissa(value, width, random)
            random = None
        return {tensor: value if self.encoded is None else self.encoded(value, random)}


FLOATS = (
    Float(torch.float64, 52),
    Float(torch.float32, 23),
    Float(torch.bfloat16, 7, _decode_bfloat16, _encode_bfloat16),
    Float(torch.float16, 10, _decode_float16, _encode_float16),
)
