"""The reductions of the graph, each in one entry: what is made of an expression over all elements of a scope.

Terms are taken in float64, where those of float32 are exact, and combined in one order on every backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from neon.engine.program.graph import REDUCTION, Node, Reduction, Scope, node
from neon.engine.program.operations import ALWAYS, LIKE_OPERANDS


def exact_sum(values: Sequence[float]) -> float:
    """Σ values rounded once, so that no order of summation shows."""
    try:
        return math.fsum(values)
    except OverflowError:
        return math.inf


def largest(values: Sequence[float]) -> float:
    """The largest of what is not negative, or NaN where one is; of nothing 0."""
    return math.nan if any(value != value for value in values) else max(values, default=0.0)


@dataclass(frozen=True)
class Kind:
    """One reduction: the `term` of each element, in generated source of float64 operands, and on tensors of them.

    `combine` makes one number of those of parts. `by_size`: the largest term is looked for, not the sum of all;
    `counts`: it is how many elements there are of which all operands, which are conditions, hold.
    """

    term: str
    torch: Callable[..., Tensor]
    never_negative: Literal["always", "where no operand is negative"] | None = None
    by_size: bool = False
    counts: bool = False

    @property
    def combine(self) -> Callable[[Sequence[float]], float]:
        """What makes one number of those of parts."""
        return largest if self.by_size else exact_sum


REDUCTIONS: dict[str, Kind] = {
    "sum_of_squares": Kind("{0} * {0}", lambda a: a * a, ALWAYS),
    "total": Kind("{0}", lambda a: a, LIKE_OPERANDS),
    "dot": Kind("{0} * {1}", torch.mul),
    "largest": Kind("abs({0})", torch.abs, ALWAYS, by_size=True),
    "count": Kind("{0}", lambda a: a, ALWAYS, counts=True),
    "count_both": Kind("{0} & {1}", torch.mul, ALWAYS, counts=True),
}


def reduce(op: str, over: Scope, *operands: Node) -> Node:
    """The node of a reduction."""
    return node(REDUCTION, operands, Reduction(op, over))


def kind_of(reduction: Node) -> Kind:
    """The entry of a reduction's node."""
    return REDUCTIONS[reduction.label.op]
