"""A float32 weight whose bits are shared between a bfloat16 weight and 16 bits beside it."""

from __future__ import annotations

import torch

from neon.engine.program.formats.floats import QUIET
from neon.engine.program.formats.format import Format, Slot
from neon.engine.program.graph import Node, apply, node
from neon.engine.program.spaces import ELEMENT

LOW_BITS = "low_bits"


class SplitWeight(Format):
    """The bfloat16 weight nearest to a float32, and the bits that it lacks, which may count down from it."""

    name = "split"
    dtype = torch.bfloat16

    def auxiliary(self, tensor: str, start: float = 0.0) -> tuple[Slot, ...]:
        return (Slot(LOW_BITS, (LOW_BITS,), torch.bfloat16, ELEMENT, 0.0, auxiliary_of=tensor),)

    def decode(self, tensor: str) -> Node:
        high, low = (node("load_bits", label=name, kind="uint") for name in (tensor, LOW_BITS))
        # Signed: what the low bits add may be negative, for the weight is rounded to nearest.
        low = apply("uint_add", apply("uint_xor", low, 0x8000), -0x8000)
        return apply("from_bits", apply("uint_add", apply("uint_shl", high, 16), low))

    def encode(self, tensor: str, value: Node, random: Node | None, width: int | None = None) -> dict[str, Node]:
        bits, number = apply("bits", value), apply("equal", value, value)
        nearest = apply("uint_shr", apply("uint_add", bits, 0x8000), 16)
        high = apply("uint_where", number, nearest, apply("uint_or", apply("uint_shr", bits, 16), QUIET >> 16))
        rest = apply("uint_add", bits, apply("uint_mul", apply("uint_shl", high, 16), 0xFFFFFFFF))
        return {tensor: high, LOW_BITS: apply("uint_where", number, apply("uint_and", rest, 0xFFFF), 0)}


SPLIT = SplitWeight()
