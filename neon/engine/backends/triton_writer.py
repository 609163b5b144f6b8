"""How one value is written in Triton."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from textwrap import indent

from neon.engine.program.graph import SIZE, Node
from neon.engine.program.operations import OPERATIONS

# How the words are written that random bits are made of.
_LEAVES = {
    "index": "(word + i.to(tl.uint32))",
    "index_high": "high",  # the chunk's first element decides: only a shard's crosses a multiple of 2^32
    "tensor_key": "key",
    "step_word": "step",
}


def writer(real: str) -> Callable[[Node, list[str]], str]:
    """How a node is written in arithmetic of one type."""
    languages = ("triton_float64", "triton") if real == "tl.float64" else ("triton",)

    def write(node: Node, operands: list[str]) -> str:
        if node.op == "const":
            return f"tl.full((), {_literal(node)}, {'tl.uint32' if node.kind == 'uint' else real})"
        if node.op == SIZE:
            return f"{node.label}.to({real})"
        if node.op == "index" and node.space.is_narrow:
            return "place.to(tl.uint32)"
        if node.op in _LEAVES:
            return _LEAVES[node.op]
        operation, values = OPERATIONS[node.op], node.args[-2:]
        # Here a bare number takes the type of the other operand; elsewhere it is given one.
        if operation.bare_numbers and sum(a.op == "const" for a in values) == 1:
            bare = [_literal(a) if a.op == "const" else text for a, text in zip(values, operands[-2:], strict=True)]
            operands = [*operands[:-2], *bare]
        if node.op == "block_peak":
            text = f"tl.abs({operands[0]})" if node.label == "signed" else operands[0]
            operands = [f"{text}.to(tl.uint32, bitcast=True)"]
        return operation.source(*languages).format(*operands)

    return write


def _literal(constant: Node) -> str:
    value = constant.label
    if constant.kind == "uint":
        return str(value) if value < 1 << 8 else hex(value)
    return repr(value) if math.isfinite(value) else f'float("{value}")'


def indented(lines: Iterable[str], by: int) -> str:
    """Lines of source, so many spaces further in."""
    return indent("\n".join(lines), " " * by)
