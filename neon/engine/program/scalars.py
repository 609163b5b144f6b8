"""Scalars on the host: what depends on run-time numbers alone, in float64, for all rows at once."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from neon.engine.program.graph import Node, walk
from neon.engine.program.printer import assignments, formula

Rows = npt.NDArray[np.float64]


def power_of_two(x: npt.ArrayLike) -> Rows:
    """2^rint(log2|x|), exactly: 0, infinity and NaN stay what they are."""
    magnitude = np.abs(np.asarray(x, np.float64))
    significand, exponent = np.frexp(magnitude)
    with np.errstate(over="ignore"):
        return np.where(
            (magnitude > 0) & np.isfinite(magnitude),
            np.ldexp(1.0, exponent - (2 * significand < np.sqrt(2.0))),
            magnitude,
        )


# On single numbers Python's own functions are many times as quick as numpy's. They raise where IEEE has an
# infinity or NaN.
_ON_FLOATS: dict[str, Callable[..., Any]] = {
    "div": operator.truediv,
    "pow": math.pow,
    "sign": lambda x: float((x > 0) - (x < 0)) if x == x else x,
    "sqrt": math.sqrt,
    "exp": math.exp,
    "log": math.log,
    "minimum": lambda a, b: a if a < b or a != a else b,
    "maximum": lambda a, b: a if a > b or a != a else b,
    "power_of_two": lambda x: float(power_of_two(x)),
    "where": lambda condition, a, b: a if condition else b,
}
_ON_ARRAYS: dict[str, Callable[..., Any]] = {
    "div": np.divide,
    "pow": np.power,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "power_of_two": power_of_two,
    "where": np.where,
}
_RAISED = (ArithmeticError, ValueError, TypeError)


def _operation(name: str) -> Callable[..., Any]:
    """An operation on floats or arrays, with IEEE's infinities and NaN."""
    on_floats, on_arrays = _ON_FLOATS[name], _ON_ARRAYS[name]

    def operation(*a: Any) -> Any:
        try:
            return on_floats(*a)
        except _RAISED:
            with np.errstate(all="ignore"):
                result = on_arrays(*a)
            return result if np.ndim(result) else float(result)

    return operation


def _one_by_one(name: str) -> Callable[..., Any]:
    """A function that is not correctly rounded, computed alike for one row and for many: numpy's differs."""
    operation = _operation(name)
    on_arrays = np.vectorize(operation, [np.float64])
    return lambda *a: on_arrays(*a) if any(map(np.ndim, a)) else operation(*a)


HOST: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "neg": operator.neg,
    "abs": operator.abs,
    "less": operator.lt,
    "less_equal": operator.le,
    "equal": operator.eq,
    **{name: _operation(name) for name in _ON_FLOATS},
    **{name: _one_by_one(name) for name in ("pow", "exp", "log")},
}


class HostProgram:
    """The scalar nodes that one pass reads: as Python source for one row, as a list of operations for many."""

    def __init__(self, roots: Sequence[Node]) -> None:
        self._roots = list(roots)
        self._nodes = [node for node in walk(roots, into_reductions=False) if node.op in HOST]
        self._constants = {n: n.label for n in walk(roots, into_reductions=False) if n.op == "const"}
        leaves = (node for node in walk(roots, into_reductions=False) if node.op not in HOST)
        self.inputs = [node for node in leaves if node.op != "const"]
        self._on_floats = self._compiled()

    def _compiled(self) -> Callable[..., Sequence[Any]]:
        given = {node: f"n{place}" for place, node in enumerate(self.inputs)}
        named, formulas = assignments(self._roots, _write, given)
        lines = [f"def compute({', '.join(given.values())}):", *(f"    {name} = {text}" for name, text in named)]
        scope: dict[str, Any] = {**_ON_FLOATS, "inf": math.inf, "nan": math.nan}
        exec("\n".join([*lines, f"    return [{', '.join(formulas)}]"]), scope)  # noqa: S102 (the graph alone is its source)
        return scope["compute"]

    def evaluate(self, known: Mapping[Node, Any]) -> Sequence[Any]:
        """The values of the roots, each a float or an array with a value per row.

        `known` holds each run-time number and each reduction that the roots use, likewise.
        """
        try:
            return self._on_floats(*[known[node] for node in self.inputs])
        except _RAISED:  # arrays, infinities and NaN
            values = {**self._constants, **known}
            for node in self._nodes:
                values[node] = HOST[node.op](*[values[a] for a in node.args])
            return [values[root] for root in self._roots]


def _write(node: Node, operands: list[str]) -> str:
    if node.op == "const":
        return repr(node.label)
    if node.op in _ON_FLOATS and node.op != "div":
        return f"{node.op}({', '.join(operands)})"
    return formula(node, operands)
