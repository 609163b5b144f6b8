"""Scalars on the host: what depends on run-time numbers alone, in float64, for all rows at once."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from neon.engine.graph import Node, walk

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


def _operation(on_floats: Callable[..., Any], on_arrays: Callable[..., Any]) -> Callable[..., Any]:
    """Python's own function, many times as quick as numpy's on single numbers.

    Numpy's serves arrays, and numbers for which Python raises where IEEE has an infinity or NaN.
    """

    def operation(*a: Any) -> Any:
        try:
            return on_floats(*a)
        except (ArithmeticError, ValueError, TypeError):
            with np.errstate(all="ignore"):
                result = on_arrays(*a)
            return result if np.ndim(result) else float(result)

    return operation


def _one_by_one(on_floats: Callable[..., float], on_arrays: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is not correctly rounded, computed alike for one row and for many: numpy's differs."""
    operation = _operation(on_floats, on_arrays)
    return _operation(on_floats, np.vectorize(operation, [np.float64]))


HOST: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": _operation(operator.truediv, np.divide),
    "pow": _one_by_one(math.pow, np.power),
    "neg": operator.neg,
    "abs": operator.abs,
    "sign": _operation(lambda x: float((x > 0) - (x < 0)) if x == x else x, np.sign),
    "sqrt": _operation(math.sqrt, np.sqrt),
    "exp": _one_by_one(math.exp, np.exp),
    "log": _one_by_one(math.log, np.log),
    "minimum": _operation(lambda a, b: a if a < b or a != a else b, np.minimum),
    "maximum": _operation(lambda a, b: a if a > b or a != a else b, np.maximum),
    "power_of_two": _operation(lambda x: float(power_of_two(x)), power_of_two),
    "less": operator.lt,
    "less_equal": operator.le,
    "equal": operator.eq,
    "where": _operation(lambda condition, a, b: a if condition else b, np.where),
}


class HostProgram:
    """The scalar nodes that one pass reads, as a list of host operations in order; made once."""

    def __init__(self, roots: Sequence[Node]) -> None:
        nodes = list(walk(roots, into_reductions=False))
        places = {node: place for place, node in enumerate(nodes)}
        self._values: list[Any] = [node.label if node.op == "const" else None for node in nodes]
        self._known = [(places[node], node) for node in nodes if node.op not in HOST and node.op != "const"]
        self._operations = [
            (places[node], HOST[node.op], [places[a] for a in node.args]) for node in nodes if node.op in HOST
        ]
        self._roots = [places[root] for root in roots]
        self.inputs = {node for _, node in self._known}

    def evaluate(self, known: Mapping[Node, Any]) -> list[Any]:
        """The values of the roots, each a float or an array with a value per row.

        `known` holds each run-time number and each reduction that the roots use, likewise.
        """
        values = self._values.copy()
        for place, node in self._known:
            values[place] = known[node]
        for place, operation, arguments in self._operations:
            values[place] = operation(*[values[a] for a in arguments])
        return [values[root] for root in self._roots]
