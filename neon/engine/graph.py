"""The expression graph: what a rule becomes when it is called with symbols.

A node is immutable and interned: the same operation on the same arguments is the same object, so
common subexpressions are found by construction. Every node has a kind (`float`, `uint` for 32-bit
words, `bool`) and either varies from element to element or is a scalar, which the host computes
once a step.
"""

from __future__ import annotations

import weakref
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from neon.engine import threads

Number = int | float

FLOAT, UINT, BOOL = "float", "uint", "bool"


@dataclass(frozen=True)
class OpType:
    """The type of an operation: the kind of its result and how it is written."""

    result: str
    text: str


# Every operation that a backend must know, and nothing else: its table has these keys.
OPERATIONS: dict[str, OpType] = {
    "add": OpType(FLOAT, "{} + {}"),
    "sub": OpType(FLOAT, "{} - {}"),
    "mul": OpType(FLOAT, "{} * {}"),
    "div": OpType(FLOAT, "{} / {}"),
    "pow": OpType(FLOAT, "{} ** {}"),
    "neg": OpType(FLOAT, "-{}"),
    "abs": OpType(FLOAT, "abs({})"),
    "sign": OpType(FLOAT, "sign({})"),
    "sqrt": OpType(FLOAT, "sqrt({})"),
    "exp": OpType(FLOAT, "exp({})"),
    "log": OpType(FLOAT, "log({})"),
    "minimum": OpType(FLOAT, "minimum({}, {})"),
    "maximum": OpType(FLOAT, "maximum({}, {})"),
    "power_of_two": OpType(FLOAT, "power_of_two({})"),
    "less": OpType(BOOL, "{} < {}"),
    "less_equal": OpType(BOOL, "{} <= {}"),
    "equal": OpType(BOOL, "{} == {}"),
    "where": OpType(FLOAT, "where({}, {}, {})"),
    "uint_add": OpType(UINT, "{} + {}"),
    "uint_mul": OpType(UINT, "{} * {}"),
    "uint_and": OpType(UINT, "{} & {}"),
    "uint_or": OpType(UINT, "{} | {}"),
    "uint_xor": OpType(UINT, "{} ^ {}"),
    "uint_shl": OpType(UINT, "{} << {}"),
    "uint_shr": OpType(UINT, "{} >> {}"),
    "uint_less": OpType(BOOL, "{} < {}"),
    "uint_where": OpType(UINT, "where({}, {}, {})"),
    "bits": OpType(UINT, "bits({})"),
    "from_bits": OpType(FLOAT, "from_bits({})"),
    "to_uint": OpType(UINT, "uint({})"),
    "block_peak": OpType(FLOAT, "block_peak({})"),
}

# Leaves: a tensor's element, a run-time number, a constant, and four words that random bits are made of.
# A `load_block` has one value for each block of elements; `block_peak` is the largest of an expression over a block,
# by the bits of its magnitude, or, labelled `unsigned`, by its bits as they are: a negative number is then the largest.
ELEMENT_LEAVES = ("load", "load_bits", "load_block", "index", "index_high", "tensor_key", "step_word")
LEAVES = (*ELEMENT_LEAVES, "scalar", "const")
# The sum of squares of an expression over every element of a scope; its label names the scope.
REDUCTION = "sum_of_squares"


class Node:
    """One value of the graph. Made by arithmetic on other nodes; never changed afterwards."""

    __slots__ = ("__weakref__", "args", "kind", "label", "op", "varies")
    op: str
    args: tuple[Node, ...]
    label: Any
    kind: str
    varies: bool

    def __repr__(self) -> str:
        operands = f"({', '.join(map(repr, self.args))})" if self.args else ""
        return f"{self.op if self.label is None else self.label}{operands}"

    def __add__(self, other: Node | Number) -> Node:
        return apply("add", self, other)

    def __radd__(self, other: Number) -> Node:
        return apply("add", other, self)

    def __sub__(self, other: Node | Number) -> Node:
        return apply("sub", self, other)

    def __rsub__(self, other: Number) -> Node:
        return apply("sub", other, self)

    def __mul__(self, other: Node | Number) -> Node:
        return apply("mul", self, other)

    def __rmul__(self, other: Number) -> Node:
        return apply("mul", other, self)

    def __truediv__(self, other: Node | Number) -> Node:
        return apply("div", self, other)

    def __rtruediv__(self, other: Number) -> Node:
        return apply("div", other, self)

    def __pow__(self, other: Node | Number) -> Node:
        if isinstance(other, (int, float)) and other == 2:
            return apply("mul", self, self)
        return apply("pow", self, other)

    def __rpow__(self, other: Number) -> Node:
        return apply("pow", other, self)

    def __neg__(self) -> Node:
        return apply("neg", self)

    def __abs__(self) -> Node:
        return apply("abs", self)

    def __lt__(self, other: Node | Number) -> Node:
        return apply("less", self, other)

    def __le__(self, other: Node | Number) -> Node:
        return apply("less_equal", self, other)

    def __gt__(self, other: Node | Number) -> Node:
        return apply("less", other, self)

    def __ge__(self, other: Node | Number) -> Node:
        return apply("less_equal", other, self)

    def __bool__(self) -> bool:
        raise TypeError(
            f"A rule cannot branch on the run-time value {self!r}: the branch would be fixed when the "
            "rule is compiled. Use where(condition, a, b), maximum(a, b) or minimum(a, b) from "
            "neon.optimizers.functions, or give the choice as a bool argument."
        )

    def __float__(self) -> float:
        raise TypeError(
            f"A rule cannot turn the run-time value {self!r} into a number. Use the functions of "
            "neon.optimizers.functions (sqrt, exp, maximum, ...) in place of those of math or numpy."
        )


_nodes: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()


def node(op: str, args: tuple[Node, ...] = (), label: Any = None, kind: str = FLOAT) -> Node:
    """The one node with this operation, these arguments and this label."""
    key = (op, args, type(label), repr(label))
    found = _nodes.get(key)
    if found is None:
        with threads.compiling:  # two threads must not make two nodes of one expression
            found = _nodes.setdefault(key, _new(op, args, label, kind))
    return found


def _new(op: str, args: tuple[Node, ...], label: Any, kind: str) -> Node:
    made = Node()
    made.op, made.args, made.label, made.kind = op, args, label, kind
    made.varies = op in ELEMENT_LEAVES or (op != REDUCTION and any(argument.varies for argument in args))
    return made


def const(value: Number) -> Node:
    """A number that the rule itself wrote down."""
    return node("const", label=float(value))


def word(value: int) -> Node:
    """A constant 32-bit word."""
    return node("const", label=int(value) & 0xFFFFFFFF, kind=UINT)


def scalar(name: str) -> Node:
    """A number that is read anew at every step: a hyper-parameter, the step count."""
    return node("scalar", label=name)


def load(name: str) -> Node:
    """An element of a tensor, decoded: `w`, `g` or a state."""
    return node("load", label=name)


def apply(op: str, *args: Node | Number) -> Node:
    """The node for an operation; numbers become constants of the kind that the operation takes."""
    uint = op.startswith("uint_") or op == "from_bits"
    nodes = tuple(a if isinstance(a, Node) else word(int(a)) if uint else const(a) for a in args)
    if op in ("where", "uint_where") and nodes[0].kind != BOOL:
        raise TypeError(
            f"where needs a condition, such as g > 0. Received: {args[0]!r}. "
            "For equality write equal(a, b): == compares the symbols themselves."
        )
    return node(op, nodes, kind=OPERATIONS[op].result)


def sum_of_squares(argument: Node, scope: str) -> Node:
    """Σ argument² over all elements of a scope: `tensor`, or a set of tensors that the plan names."""
    return node(REDUCTION, (argument,), label=scope)


def walk(roots: Iterable[Node], *, into_reductions: bool = True, given: Container[Node] = ()) -> Iterator[Node]:
    """Every node below `roots` once, arguments before what uses them; not what lies below `given`."""
    seen: set[Node] = set()
    stack = [(root, False) for root in reversed(list(roots))]
    while stack:
        current, done = stack.pop()
        if done:
            yield current
        elif current not in seen:
            seen.add(current)
            stack.append((current, True))
            if current not in given and (into_reductions or current.op != REDUCTION):
                stack.extend((a, False) for a in reversed(current.args) if a not in seen)
