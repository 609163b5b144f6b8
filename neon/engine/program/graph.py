"""The expression graph: what a rule becomes when it is called with symbols.

A node is immutable and interned: the same operation on the same arguments is the same object, so
common subexpressions are found by construction. Every node has a kind (`float`, `uint` for 32-bit
words, `bool`) and a space: it varies from element to element, has one value for each row, column, matrix or
tensor, or is a scalar, which the host computes once a step.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

from neon.engine.native.locks import compiling
from neon.engine.program.operations import BOOL, FLOAT, OPERATIONS, UINT
from neon.engine.program.spaces import ELEMENT, STEP, TENSOR, Scope, Space, joined, reduced

if TYPE_CHECKING:
    from typing import Self

Number = int | float

# Leaves: a tensor's element, a run-time number, a constant, and four words that random bits are made of.
# A `load_block` has one value for each block of elements.
LOADS = ("load", "load_bits", "load_block")
ELEMENT_LEAVES = (*LOADS, "index", "index_high", "tensor_key", "step_word")
# How many rows or columns the matrices of a tensor have, all shards together.
SIZE = "size"
# The precision of the format of the weight, which lowering knows.
PRECISION = "precision"
LEAVES = (*ELEMENT_LEAVES, SIZE, PRECISION, "scalar", "const")
# What is made of expressions over every element of a scope: its label is a `Reduction`.
REDUCTION = "reduction"
# What torch makes of whole matrices: its label is a `Called`.
CALL = "call"


@dataclass(frozen=True)
class Reduction:
    """What a reduction makes of its operands, by a key of REDUCTIONS, and the scope over which it goes."""

    op: str
    over: Scope


@dataclass(frozen=True)
class Called:
    """A function of matrices by its key in CALLS, the choices it is called with, and what there is one result for."""

    name: str
    choices: tuple[tuple[str, str | bool | None], ...]
    of: Space

    def __str__(self) -> str:
        return self.name


Value = TypeVar("Value", bound="Arithmetic")


def _infix(op: str) -> Callable[[Value, Value | Number], Value]:
    return lambda left, right: left._made(op, left, right)


def _swapped(op: str) -> Callable[[Value, Value | Number], Value]:
    return lambda right, left: right._made(op, left, right)


class Arithmetic:
    """The operators of what stands for a value: each makes a new one of the same class, by `_made`."""

    __slots__ = ()

    def _made(self, op: str, *args: Any) -> Self:
        """The value of an operation."""
        raise NotImplementedError

    __add__, __radd__ = _infix("add"), _swapped("add")
    __sub__, __rsub__ = _infix("sub"), _swapped("sub")
    __mul__, __rmul__ = _infix("mul"), _swapped("mul")
    __truediv__, __rtruediv__ = _infix("div"), _swapped("div")
    __rpow__ = _swapped("pow")
    __lt__, __gt__ = _infix("less"), _swapped("less")
    __le__, __ge__ = _infix("less_equal"), _swapped("less_equal")

    def __pow__(self, other: Self | Number) -> Self:
        if isinstance(other, Real) and abs(other) in _SHORT_POWERS:
            power = self._short_power(float(abs(other)))
            return power if other > 0 else 1.0 / power
        return self._made("pow", self, other)

    def _short_power(self, exponent: float) -> Self:
        """A power of products and a square root, which are the same on every device."""
        power = self._made("sqrt", self) if exponent % 1 else None
        for _ in range(int(exponent)):
            power = self if power is None else power * self
        assert power is not None
        return power

    def __neg__(self) -> Self:
        return self._made("neg", self)

    def __pos__(self) -> Self:
        return self

    def __abs__(self) -> Self:
        return self._made("abs", self)


_SHORT_POWERS = (0.5, 1, 1.5, 2, 2.5, 3, 4)


class Node(Arithmetic):
    """One value of the graph. Made by arithmetic on other nodes; never changed afterwards."""

    __slots__ = ("__weakref__", "args", "kind", "label", "op", "space")
    op: str
    args: tuple[Node, ...]
    label: Any
    kind: str
    space: Space

    @property
    def varies(self) -> bool:
        """Whether it has a value for each element."""
        return self.space is ELEMENT

    def _made(self, op: str, *args: Any) -> Node:
        return apply(op, *args)

    def __repr__(self) -> str:
        operands = f"({', '.join(map(repr, self.args))})" if self.args else ""
        return f"{self.op if self.label is None else self.label}{operands}"


_nodes: weakref.WeakValueDictionary[tuple[Any, ...], Node] = weakref.WeakValueDictionary()


def node(op: str, args: tuple[Node, ...] = (), label: Any = None, kind: str = FLOAT, of: Space = ELEMENT) -> Node:
    """The one node with this operation, these arguments and this label; what is read from tensors has values `of`."""
    key = (op, args, type(label), repr(label), of)
    found = _nodes.get(key)
    if found is None:
        with compiling:  # two threads must not make two nodes of one expression
            found = _nodes.setdefault(key, _new(op, args, label, kind, of))
    return found


def _new(op: str, args: tuple[Node, ...], label: Any, kind: str, of: Space) -> Node:
    made = Node()
    made.op, made.args, made.label, made.kind = op, args, label, kind
    made.space = _space(op, args, label, of)
    return made


def _space(op: str, args: tuple[Node, ...], label: Any, of: Space) -> Space:
    if op in ELEMENT_LEAVES:
        return of
    if op == SIZE:
        return TENSOR
    if op == CALL:
        return label.of
    below = joined(argument.space for argument in args)
    if op == REDUCTION:
        return reduced(label.over, below) or below
    unknown_to_host = op in OPERATIONS and OPERATIONS[op].floats is None
    return ELEMENT if unknown_to_host and below is STEP else below


def const(value: Number) -> Node:
    """A number that the rule itself wrote down."""
    return node("const", label=float(value))


def word(value: int) -> Node:
    """A constant 32-bit word."""
    return node("const", label=int(value) & 0xFFFFFFFF, kind=UINT)


def scalar(name: str) -> Node:
    """A number that is read anew at every step: a hyper-parameter, the step count."""
    return node("scalar", label=name)


def load(name: str, of: Space = ELEMENT) -> Node:
    """A value of a tensor, decoded: `w`, `g` or a state."""
    return node("load", label=name, of=of)


def size(of: str) -> Node:
    """How many `rows` or `columns` the matrices of the tensor at hand have."""
    return node(SIZE, label=of)


def is_narrow_sum(reduction: Node) -> bool:
    """Whether a reduction is of values for rows or columns, which no pass over elements takes."""
    return joined(argument.space for argument in reduction.args).is_narrow


def apply(op: str, *args: Node | Number) -> Node:
    """The node for an operation; numbers become constants of the kind that it takes, conditions 1 or 0."""
    form = OPERATIONS[op]
    nodes = tuple(operand(argument, kind) for argument, kind in zip(args, form.takes, strict=True))
    return node(op, nodes, kind=form.result)


def operand(value: Node | Number, kind: str = FLOAT) -> Node:
    """A value as the operand of what takes this kind."""
    if not isinstance(value, Node):
        return word(int(value)) if kind == UINT else const(value)
    if kind == FLOAT and value.kind == BOOL:
        return node("where", (value, const(1), const(0)))
    return value


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
