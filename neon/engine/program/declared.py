"""What a rule declares of a state: where it starts, and what it has one number for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

Shape = tuple[int, ...]
# The start of a state that begins as the weight: an average of weights, weights of another kind.
WEIGHT: Final = "weight"


@dataclass(frozen=True)
class Space:
    """What there is one number for; `shape` gives the shape of such a tensor beside a weight's."""

    name: str
    shape: Callable[[Sequence[int]], Shape]

    def __repr__(self) -> str:
        return self.name


ELEMENT = Space("element", tuple)
GROUP = Space("group", lambda _: ())


@dataclass(frozen=True)
class State:
    """A state of a rule, in the place of a default: `def rule(w, g, z=State(WEIGHT), *, lr)`; a number is its start."""

    start: float | str = 0.0
    of: Space = ELEMENT

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
