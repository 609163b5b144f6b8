"""What a rule declares of a state: where it starts, and what it has one number for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from neon.engine.program.spaces import ELEMENT, GROUP, OPTIMIZER, TENSOR, Space

# The start of a state that begins as the weight: an average of weights, weights of another kind.
WEIGHT: Final = "weight"


@dataclass(frozen=True)
class State:
    """A state of a rule, in the place of a default: `def rule(w, g, z=State(WEIGHT), *, lr)`; a number is its start.

    Beside one for each element there are those with one `of` each of the ROWS or COLUMNS of the last two dimensions,
    those of ROW_PAIRS or COLUMN_PAIRS, which start at a number times the identity, and one number of a TENSOR, in
    float64. What is one number of a GROUP or an OPTIMIZER stays in parameter groups, in float64 too. All may start at
    what the rule takes by a name: `State("d0", of=OPTIMIZER)`; states of a tensor at the value of its first update.
    """

    start: float | str = 0.0
    of: Space = ELEMENT

    @property
    def is_number(self) -> bool:
        """Whether it is one number, kept in parameter groups."""
        return self.of in (GROUP, OPTIMIZER)

    @property
    def is_scalar(self) -> bool:
        """Whether a step computes with it as with a hyper-parameter: it is one number of a tensor, or of many."""
        return self.is_number or self.of is TENSOR

    @property
    def starts_as_weight(self) -> bool:
        """Whether it begins as a copy of the weight, and is a weight then: no moment, of which few bits are enough."""
        return self.start == WEIGHT

    @property
    def starts_at_value(self) -> bool:
        """Whether it begins at a value of its group, by name."""
        return isinstance(self.start, str) and not self.starts_as_weight

    @property
    def number(self) -> float:
        """The number that it starts at; 0 where that is one of a group, by name."""
        if self.starts_as_weight:
            raise TypeError(f"This state starts as the {self.start}, not at a number.")
        return 0.0 if isinstance(self.start, str) else self.start
