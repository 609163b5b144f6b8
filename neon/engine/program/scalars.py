"""Scalars on the host: what depends on run-time numbers alone, in float64, for all rows at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from numpy import ndarray

from neon.engine.program.graph import Node, walk
from neon.engine.program.meanings import RAISED
from neon.engine.program.operations import OPERATIONS, Operation
from neon.engine.program.printer import assignments, formula


class HostProgram:
    """The scalar nodes that one pass reads: as Python source for one row, as a list of operations for many."""

    def __init__(self, roots: Sequence[Node]) -> None:
        self._roots = list(roots)
        self._nodes = [node for node in walk(roots, into_reductions=False) if node.op in OPERATIONS]
        self._constants = {n: n.label for n in walk(roots, into_reductions=False) if n.op == "const"}
        leaves = (node for node in walk(roots, into_reductions=False) if node.op not in OPERATIONS)
        self.inputs = [node for node in leaves if node.op != "const"]
        self._on_floats = self._compiled({node.op: OPERATIONS[node.op].floats for node in self._nodes})

    @cached_property
    def _on_arrays(self) -> Callable[..., Sequence[Any]]:
        return self._compiled({node.op: _of_arrays(OPERATIONS[node.op]) for node in self._nodes})

    def _compiled(self, functions: Mapping[str, Any]) -> Callable[..., Sequence[Any]]:
        given = {node: f"n{place}" for place, node in enumerate(self.inputs)}
        named, formulas = assignments(self._roots, _write, given)
        lines = [f"def compute({', '.join(given.values())}):", *(f"    {name} = {text}" for name, text in named)]
        scope: dict[str, Any] = {**functions, "inf": math.inf, "nan": math.nan}
        exec("\n".join([*lines, f"    return [{', '.join(formulas)}]"]), scope)  # noqa: S102 (the graph alone is its source)
        return scope["compute"]

    def evaluate(self, known: Mapping[Node, Any]) -> Sequence[Any]:
        """The values of the roots, each a float or an array with a value per row.

        `known` holds each run-time number and each reduction that the roots use, likewise.
        """
        inputs = [known[node] for node in self.inputs]
        compute = self._on_arrays if ndarray in map(type, inputs) else self._on_floats
        try:
            return compute(*inputs)
        except RAISED:  # infinities and NaN
            values = {**self._constants, **known}
            for node in self._nodes:
                values[node] = OPERATIONS[node.op].host(*[values[a] for a in node.args])
            return [values[root] for root in self._roots]

    def tape(self, codes: Mapping[str, int]) -> Tape | None:
        """The operations one after another, by their codes; None where one has none."""
        if any(node.op not in codes for node in self._nodes):
            return None
        places = {node: place for place, node in enumerate([*self.inputs, *self._constants, *self._nodes])}
        lines = [(codes[node.op], [places[a] for a in node.args], places[node]) for node in self._nodes]
        return Tape(len(places), [*self._constants.values()], lines, [places[root] for root in self._roots])


class Tape(NamedTuple):
    """Operations on numbered values: of these come first the inputs, then constants.

    A line has the code of an operation, the places of its operands, and that of its value; `results` are those of what
    is asked for.
    """

    values: int
    constants: Sequence[float]
    lines: Sequence[tuple[int, Sequence[int], int]]
    results: Sequence[int]


def _of_arrays(operation: Operation) -> Callable[..., Any]:
    """An operation on arrays, of which some may be single numbers: numpy's own where it rounds as Python does."""
    of_arrays = operation.arrays or operation.floats
    return of_arrays if operation.exact and of_arrays is not None else operation.host


def _write(node: Node, operands: list[str]) -> str:
    if node.op == "const":
        return repr(node.label)
    own = OPERATIONS[node.op].sources.get("python")
    return own.format(*operands) if own else formula(node, operands)
