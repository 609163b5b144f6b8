"""Which steps of an optimizer are looked at, and what was seen in the last of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from neon.engine.observation import Line, Observation

T = TypeVar("T")


class Looking:
    """Looks at each step whose number `every` divides; `left` is how many steps come before the next of these.

    A step that a device has left out by itself counts as one, for the host does not know of it.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._go_on_from(0)
        self._made: tuple[object, Any] | None = None  # of which it is, and what was made of it
        self._seen: list[tuple[int, Sequence[Observation]]] = []  # the last, and where a device has to be asked, others

    def _go_on_from(self, count: int) -> None:
        self._next = (count // self._every + 1) * self._every
        self.left = self._next - 1 - count

    @property
    def count(self) -> int:
        """The number of steps that were made."""
        return self._next - 1 - self.left

    @property
    def is_due(self) -> bool:
        """Whether the next step is to be looked at."""
        return self.left == 0

    def follow(self, counts: Iterable[float]) -> None:
        """Count from where parameters stand that a plan is new for: their updates may have been loaded."""
        self._go_on_from(max(self.count, int(max(counts, default=0))))

    def made(self, observations: Sequence[Observation]) -> None:
        """A step has been made, and was seen to do this, if it was looked at."""
        self._go_on_from(self.count + 1)
        if observations:
            self._seen = [*self._seen[-1:], (self.count, observations)]

    def last(self, table: Callable[[int, list[Line]], T]) -> T | None:
        """What `table` makes of the last step that was looked at, by its number and lines; it is made once."""
        for seen in reversed(self._seen):
            if self._made is not None and self._made[0] is seen:
                return self._made[1]
            count, observations = seen
            if not observations[0].left_out:
                made = table(count, [line for observation in observations for line in observation.lines()])
                self._made = (seen, made)
                return made
        return None if self._made is None else self._made[1]
