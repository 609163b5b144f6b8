"""Scalars on the host: what depends on run-time numbers alone, in float64, for all rows at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from neon.engine.graph import Node, walk

Rows = npt.NDArray[np.float64]


def power_of_two(x: npt.ArrayLike) -> Rows:
    """2^rint(log2|x|), exactly: 0, infinity and NaN stay what they are."""
    magnitude = np.abs(np.asarray(x, np.float64))
    significand = 2 * np.frexp(magnitude)[0]
    power = magnitude / np.where(significand == 0, 1, significand)
    rounded = np.where(significand >= np.sqrt(2.0), 2 * power, power)
    return np.where(np.isfinite(magnitude), rounded, magnitude)


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


def evaluate(roots: Sequence[Node], known: Mapping[Node, Rows], rows: int) -> Rows:
    """The values of scalar nodes, shape (rows, len(roots)).

    `known` holds the value of each run-time number and of each reduction that the roots use, one
    per row.
    """
    values: dict[Node, Rows] = dict(known)
    result = np.empty((rows, len(roots)))
    with np.errstate(all="ignore"):
        for node in walk(roots, into_reductions=False):
            if node in values:
                continue
            if node.op == "const":
                values[node] = np.float64(node.label)  # type: ignore[assignment]
            else:
                values[node] = HOST[node.op](*(values[a] for a in node.args))
        for column, root in enumerate(roots):
            result[:, column] = values[root]
    return result
