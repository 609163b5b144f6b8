"""Scalars on the host: what depends on run-time numbers alone, in float64, for all rows at once."""

from __future__ import annotations

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


def _one_by_one(function: np.ufunc) -> Callable[..., Any]:
    """A function that is not correctly rounded, computed alike for one row and for many: vector code differs."""
    return lambda *a: function(*a) if all(np.ndim(x) == 0 for x in a) else np.vectorize(function, [np.float64])(*a)


# Operators serve scalars and arrays alike, and scalars faster than ufuncs do.
HOST: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": np.divide,
    "pow": _one_by_one(np.power),
    "neg": operator.neg,
    "abs": operator.abs,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "exp": _one_by_one(np.exp),
    "log": _one_by_one(np.log),
    "minimum": np.minimum,
    "maximum": np.maximum,
    "power_of_two": power_of_two,
    "less": np.less,
    "less_equal": np.less_equal,
    "equal": np.equal,
    "where": np.where,
}


class HostProgram:
    """The scalar nodes that one pass reads, as a list of host operations in order; made once."""

    def __init__(self, roots: Sequence[Node]) -> None:
        nodes = list(walk(roots, into_reductions=False))
        self._roots = roots
        self._constants = {node: np.float64(node.label) for node in nodes if node.op == "const"}
        self._operations = [(node, HOST[node.op], node.args) for node in nodes if node.op in HOST]

    def evaluate(self, known: Mapping[Node, Any], out: npt.NDArray[Any]) -> None:
        """Write the values of the roots to `out`, shape (rows, roots).

        `known` holds each run-time number and each reduction that the roots use: one value per row, or
        a float64 scalar for all rows.
        """
        values = {**self._constants, **known}
        for node, operation, arguments in self._operations:
            values[node] = operation(*[values[a] for a in arguments])
        for column, root in enumerate(self._roots):
            out[:, column] = values[root]
