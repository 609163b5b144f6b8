"""What a rule declares of a state: where it starts, and what it has one number for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from neon.engine.program.graph import Scope

Shape = tuple[int, ...]
# The start of a state that begins as the weight: an average of weights, weights of another kind.
WEIGHT: Final = "weight"


def _one(_: Sequence[int]) -> Shape:
    return ()


@dataclass(frozen=True)
class Space(Scope):
    """What there is one number for; `shape` gives the shape of such a tensor beside a weight's."""

    shape: Callable[[Sequence[int]], Shape] = _one

    def __repr__(self) -> str:
        return self.name


ELEMENT = Space("element", shape=tuple)
# A tensor with all of its shards; the tensors of a parameter group; those of an optimizer.
TENSOR, GROUP, OPTIMIZER = Space("tensor"), Space("group"), Space("optimizer")


@dataclass(frozen=True)
class State:
    """A state of a rule, in the place of a default: `def rule(w, g, z=State(WEIGHT), *, lr)`; a number is its start.

    What is one number `of` a GROUP or an OPTIMIZER stays in parameter groups, in float64. It may start at what the
    rule takes by a name: `State("d0", of=OPTIMIZER)`.
    """

    start: float | str = 0.0
    of: Space = ELEMENT

    @property
    def is_number(self) -> bool:
        """Whether it is one number, kept in parameter groups."""
        return self.of in (GROUP, OPTIMIZER)

    @property
    def starts_as_weight(self) -> bool:
        """Whether it begins as a copy of the weight, and is a weight then: no moment, of which few bits are enough."""
        return self.start == WEIGHT

    @property
    def number(self) -> float:
        """The number that it starts at."""
        if isinstance(self.start, str):
            raise TypeError(f"This state starts as the {self.start}, not at a number.")
        return self.start
