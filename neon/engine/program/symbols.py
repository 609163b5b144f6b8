"""Symbols: what a rule sees in place of numbers when it is traced.

A symbol stands for a node. Nodes are the engine's own, interned and compared by identity; a symbol takes part in
arithmetic and comparisons alone, and refuses all else by naming what to write: nothing that a rule does with a value
may be decided once, when it is traced.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, NoReturn

import numpy as np

from neon.engine.program.graph import (
    CALL,
    PRECISION,
    REDUCTION,
    Arithmetic,
    Called,
    Node,
    apply,
    const,
    node,
    operand,
    size,
    walk,
)
from neon.engine.program.operations import BOOL, FLOAT, OPERATIONS
from neon.engine.program.printer import formula
from neon.engine.program.reductions import reduce
from neon.engine.program.spaces import (
    COLUMNS,
    ELEMENT,
    OPTIMIZER,
    PAIRS,
    ROWS,
    STEP,
    TENSOR,
    Scope,
    Space,
    joined,
    reduced,
)
from neon.messages import received

_FUNCTIONS = "the functions of neon.optimizers.functions (sqrt, exp, log, maximum, minimum, clip, where, norm, ...)"
_BRANCH = (
    "the branch would be fixed when the rule is compiled. Use where(condition, a, b), maximum(a, b) or minimum(a, b) "
    "from neon.optimizers.functions, or give the choice as a bool argument"
)
# What other libraries call what a rule may write.
_INSTEAD = {
    **{name: f"{name}(x)" for name in ("sqrt", "exp", "log", "sign", "power_of_two", "norm")},
    **{name: f"{name}(a, b)" for name in ("maximum", "minimum", "equal")},
    **dict.fromkeys(("abs", "absolute", "fabs"), "abs(x)"),
    **dict.fromkeys(("clip", "clamp", "clamp_min", "clamp_max"), "clip(x, low, high)"),
    **dict.fromkeys(("where", "masked_fill"), "where(condition, a, b)"),
    **dict.fromkeys(("pow", "power", "square", "float_power"), "x**2"),
    **dict.fromkeys(("rsqrt", "reciprocal"), "1 / x or 1 / sqrt(x)"),
    **dict.fromkeys(("max", "amax", "fmax"), "maximum(a, b)"),
    **dict.fromkeys(("min", "amin", "fmin"), "minimum(a, b)"),
    **dict.fromkeys(("eq", "isclose"), "a == b or equal(a, b)"),
    **dict.fromkeys(("sum", "cumsum", "nansum"), "total(x), over all elements"),
    **dict.fromkeys(("var", "std", "vector_norm"), "norm(x), total(x) or mean(x), over all elements"),
    **{name: f"{name}(x), over all elements" for name in ("mean",)},
    "dot": "dot(x, y), over all elements",
    **dict.fromkeys(("add", "sub", "subtract", "mul", "multiply", "div", "divide", "neg"), "+, -, * and /"),
    **dict.fromkeys(("lerp", "addcmul", "addcdiv"), "+, -, * and /"),
}
# numpy's names of operators that its numbers apply to what is beside them.
_UFUNCS: dict[str, Callable[[Any, Any], Any]] = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "power": operator.pow, "less": operator.lt, "less_equal": operator.le, "greater": operator.gt,
    "greater_equal": operator.ge, "equal": operator.eq, "not_equal": operator.ne,
}  # fmt: skip


def _instead(name: str) -> str:
    known = _INSTEAD.get(name.rstrip("_"))
    return f"Write {known}" if known else f"Write operators and {_FUNCTIONS}"


def _refusing(what: str, remedy: str) -> Any:
    """A method that refuses what Python would do with a number."""

    def refuse(self: Symbol, *_: Any) -> NoReturn:
        raise TypeError(f"A rule cannot {what} the run-time value {self!r}: {remedy}.")

    return refuse


class Symbol(Arithmetic):
    """A value that is known at run time: an element of a tensor, a hyper-parameter, and what is made of these."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node

    def _made(self, op: str, *args: Any) -> Symbol:
        return operation(op, *args)

    def __eq__(self, other: object) -> Symbol:  # type: ignore[override]
        return operation("equal", self, other)

    def __ne__(self, other: object) -> Symbol:  # type: ignore[override]
        return operation("equal", operation("equal", self, other), 0.0)

    def __repr__(self) -> str:
        return _brief(self.node, 3)

    __bool__ = _refusing("branch on", _BRANCH)
    __contains__ = _refusing("look into", "write equal(a, b), once for each value")
    __hash__ = _refusing("hash", "it is no key of a dict, a set or a cached function")  # type: ignore[assignment]
    __len__ = __iter__ = __getitem__ = __delitem__ = _refusing(
        "take elements of", "it stands for one element, and all are computed alike. " + _instead("sum")
    )
    __setitem__ = _refusing("write into", "return the new value, as in return w - lr * g")
    __float__ = __int__ = __complex__ = __round__ = __trunc__ = __floor__ = __ceil__ = _refusing(
        "turn into a number", f"it has none yet. Use {_FUNCTIONS} in place of those of math or numpy"
    )
    __index__ = _refusing(
        "count or index with", "it has no number yet. Write the number itself, or give it as a string"
    )
    __matmul__ = __rmatmul__ = _refusing("multiply matrices by", "it stands for one element. " + _instead("mul"))
    __mod__ = __rmod__ = __floordiv__ = __rfloordiv__ = __divmod__ = __rdivmod__ = _refusing(
        "take the whole part or the rest of", "write remainder(a, b) for numbers such as step"
    )
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __invert__ = _refusing(
        "combine by &, | or ~", "write where(a, b, c) within where, or give the choice as a bool argument"
    )
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = _refusing("shift", "write products by powers of two")
    __array__ = _refusing("make an array of", f"use {_FUNCTIONS} in place of numpy's")

    def __format__(self, spec: str) -> str:
        if spec:
            raise TypeError(f"A rule cannot format the run-time value {self!r} by {spec!r}: it has no number yet.")
        return repr(self)

    def __deepcopy__(self, _: Any) -> Symbol:
        return self  # it never changes, and its node is the only one

    def __getattr__(self, name: str) -> NoReturn:
        if name == "node" or name.startswith("__"):  # what Python asks of a symbol that is being made
            raise AttributeError(name)
        raise AttributeError(f"The run-time value {self!r} of a rule has no .{name}. {_instead(name)}.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **_: Any) -> Any:
        if method == "__call__" and ufunc.__name__ in _UFUNCS and len(inputs) == 2:
            # Python's numbers: numpy's would come here again.
            return _UFUNCS[ufunc.__name__](*(x if isinstance(x, Symbol) else _number(x) for x in inputs))
        raise TypeError(f"A rule cannot call numpy.{ufunc.__name__} on {self!r}. {_instead(ufunc.__name__)}.")

    def __array_function__(self, function: Any, *_: Any) -> NoReturn:
        raise TypeError(f"A rule cannot call numpy.{function.__name__} on {self!r}. {_instead(function.__name__)}.")

    @classmethod
    def __torch_function__(cls, function: Any, *_: Any) -> NoReturn:
        name = getattr(function, "__name__", str(function)).strip("_")
        raise TypeError(
            f"A rule cannot call torch.{name} on its run-time values, nor combine them with tensors. {_instead(name)}; "
            "give what a tensor holds as a hyper-parameter or a state."
        )


def operation(op: str, *args: Any) -> Symbol:
    """The symbol of an operation on symbols and numbers."""
    nodes = [argument.node if isinstance(argument, Symbol) else const(_number(argument)) for argument in args]
    if OPERATIONS[op].takes[0] == BOOL and nodes[0].kind != BOOL:
        raise TypeError(f"where needs a condition, such as g > 0. Received: {args[0]!r}.")
    return Symbol(apply(op, *nodes))


def reduction(op: str, over: Scope, *args: Any) -> Symbol:
    """The symbol of a reduction of symbols and numbers."""
    if over not in (ROWS, COLUMNS, TENSOR, OPTIMIZER):
        raise TypeError(
            f"over must be ROWS, COLUMNS, TENSOR or OPTIMIZER, of neon.optimizers. {received('over', over)}"
        )
    if over == OPTIMIZER and (found := _called([each.node for each in args if isinstance(each, Symbol)])):
        raise TypeError(
            f"{op} over the optimizer cannot be taken of what {found} makes of single matrices: these are worked on "
            "bucket by bucket, and the first are updated before the last are known. Take it over the TENSOR."
        )
    nodes = [argument.node if isinstance(argument, Symbol) else const(_number(argument)) for argument in args]
    below = joined(node.space for node in nodes)
    if reduced(over, below) is None:
        raise TypeError(
            f"{op} over the {over} needs values that differ along it. Received: one for each of {below.plural}. "
            + ("Leave the reduction out." if over in (ROWS, COLUMNS) else "Reduce values of elements.")
        )
    return Symbol(reduce(op, over, *map(operand, nodes)))


def call(name: str, of: Space, *args: Any, **choices: str | bool | None) -> Symbol:
    """The symbol of what a function of matrices makes of elements, of pairs and of numbers, one for each of a space."""
    nodes = [operand(each.node if isinstance(each, Symbol) else const(_number(each))) for each in args]
    for each, given in zip(nodes, args, strict=True):
        if each.space not in (ELEMENT, *PAIRS, STEP):
            raise TypeError(
                f"{name} takes matrices and numbers. Received: {given!r}, one for each of {each.space.plural}."
            )
    return Symbol(node(CALL, tuple(nodes), Called(name, tuple(choices.items()), of)))


def count(over: Scope) -> Symbol:
    """How many values a reduction over ROWS or COLUMNS makes one of: a row has as many as there are columns."""
    return Symbol(size("columns" if over == ROWS else "rows"))


def difference(new: Any, old: Any) -> Any:
    """new − old; where new is written as old plus or minus something, that itself, which no sum has rounded."""
    if not isinstance(new, Symbol) or not isinstance(old, Symbol):
        return new - old
    found = _added(new.node, old.node)
    return new - old if found is None else Symbol(found)


def _added(new: Node, old: Node) -> Node | None:
    """What a sum adds to a node that is its first term, or its second."""
    if new.op not in ("add", "sub"):
        return None
    one, other = new.args
    signed = other if new.op == "add" else -other
    if one is old:
        return signed
    if other is old and new.op == "add":
        return one
    before = _added(one, old)
    return None if before is None else before + signed


def _called(nodes: Iterable[Node]) -> str | None:
    """The first function of matrices that some values depend on."""
    return next((str(below.label) for below in walk(nodes) if below.op == CALL), None)


def precision() -> Symbol:
    """The precision of the format that a weight is kept in."""
    return Symbol(node(PRECISION))


def node_of(value: Any) -> Node | None:
    """The node of what a rule returns, or None where that is no number."""
    if isinstance(value, Symbol):
        return value.node if value.node.kind == FLOAT else None
    return const(float(value)) if isinstance(value, Real) and not isinstance(value, bool) else None


def _number(value: Any) -> float:
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value.item()
    if isinstance(value, Real):
        return float(value)
    raise TypeError(
        f"A rule computes with its arguments and with numbers. Received: a {type(value).__name__}. Give what it holds "
        "as a hyper-parameter or a state."
    )


def _brief(node: Node, depth: int) -> str:
    """A node in the notation of a rule, so much of it as fits in a message."""
    if node.args and depth == 0:
        return "..."
    operands = [_brief(argument, depth - 1) for argument in node.args]
    return f"{node.label.op}({', '.join(operands)})" if node.op == REDUCTION else formula(node, operands)
