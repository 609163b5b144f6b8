"""Scalars on the host: what depends on run-time numbers alone, in float64, for all rows at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from neon.engine.graph import REDUCTION, Node, walk

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


HOST: dict[str, Callable[..., Rows]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "pow": np.power,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
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
        self.reductions = [node for node in nodes if node.op == REDUCTION]
        self._roots = roots
        self._constants = {node: np.float64(node.label) for node in nodes if node.op == "const"}
        self._operations = [(node, HOST[node.op], node.args) for node in nodes if node.op in HOST]

    def evaluate(self, known: Mapping[Node, Rows], rows: int) -> Rows:
        """The values of the roots, shape (rows, roots).

        `known` holds each run-time number and each reduction that the roots use, one value per row.
        """
        values: dict[Node, Any] = {**self._constants, **known}
        for node, operation, arguments in self._operations:
            values[node] = operation(*[values[a] for a in arguments])
        result = np.empty((rows, len(self._roots)))
        for column, root in enumerate(self._roots):
            result[:, column] = values[root]
        return result
