"""The first steps of an optimizer, which are watched: what is wrong is said once, at the first and the hundredth."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

from neon.audit.checks import findings
from neon.audit.clips import clips_by_norm, look_at_norms, look_at_values
from neon.audit.findings import AuditWarning, Finding
from neon.audit.rounding import Before
from neon.audit.seen import LAST, Record, Seen
from neon.audit.silent import Detached
from neon.stepping.groups import has_no_rate
from neon.stepping.sharding import is_abstract

# The steps at which something is done: at the first and the last everything is looked at, in between norms are read,
# for which a device is waited, and before the last hooks are put on the model if some of it has had no gradient.
NORMS = (2, 4, 8, 16, 32, 64)
LOOKS = {1, *NORMS, LAST - 1, LAST}
_NEON = ("neon.", "torch.")


class FirstSteps:
    """Counts the first steps, and goes around those that are looked at; `record` is what they have shown."""

    def __init__(self) -> None:
        self.record = Record()
        self._looks = LOOKS
        self._said: set[Finding] = set()
        self._detached: Detached | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to watch any more."""
        return self.record.is_over or self.record.failure is not None

    def is_due(self) -> bool:
        """Whether the next step is to be looked at; all others are counted here."""
        number = self.record.steps + 1
        if number in self._looks:
            return True
        self.record.steps = number
        return False

    def around(self, step: Callable[[], Any], seen: Seen) -> Any:
        """Make a step, and look at it. Where a look fails the training goes on, and none follows."""
        before = self._tried(self._look_before, seen)
        result = step()
        number = self.record.steps + 1
        found = self._tried(self._look_after, seen, before) if before is not None else None
        if found:
            self._say(found, number)
        return result

    def _tried(self, look: Callable[..., Any], *given: Any) -> Any:
        """What a look gives, None where it fails: for that nobody's training ends."""
        try:
            return look(*given)
        except Exception as error:
            self.record.failure = f"{type(error).__name__}: {error}"
            self._detached = None  # with its hooks
            return None

    def _look_before(self, seen: Seen) -> tuple[Before | None, int]:
        """Weights, and how many steps were left out, before a step."""
        number = self.record.steps + 1
        return Before(seen) if number == LAST else None, _left_out(seen) if number in (1, LAST) else 0

    def _look_after(self, seen: Seen, before_it: tuple[Before | None, int]) -> list[Finding]:
        """What a step has shown. A first or last one that changed nothing does not count."""
        record, number, (before, left_out) = self.record, self.record.steps + 1, before_it
        decides = number in (1, LAST)
        if decides and (_left_out(seen) != left_out or not (number == LAST or _has_begun(seen))):
            return []
        record.steps = number
        look_at_norms(seen, record)
        if number == 1:
            record.rates = seen.rates
            if not clips_by_norm(seen):
                self._looks = LOOKS - {*NORMS}
        elif number == LAST - 1:
            record.late_rates = seen.rates
            self._detached = Detached(seen)
        if before is not None:
            before.compare(record)
        if number == LAST and self._detached is not None:
            self._detached.end(seen, record)
        if not decides:
            return []
        look_at_values(seen, record)
        return findings(seen, number)

    def _say(self, found: list[Finding], number: int) -> None:
        """Warn of what has not been said before."""
        new = [finding for finding in found if finding not in self._said]
        self._said.update(new)
        if new:
            _warn(new, number)


def _left_out(seen: Seen) -> int:
    """How many steps were left out, for which a device is waited for: not where a graph may be captured."""
    return 0 if seen.rules.capturable else seen.optimizer.skipped_steps


def _has_begun(seen: Seen) -> bool:
    """Whether a step has been made: not a rehearsal, nor one without any gradient."""
    params = [member.param for member in seen.members] + [param for _, param in seen.named]
    if any(map(is_abstract, params)):
        return False
    if not seen.rules.capturable and has_no_rate(seen.optimizer):  # for a rate on a device it would be waited
        return seen.steps > 0
    return bool(seen.optimizer.state) or any(param.grad is not None for param in params)


def _warn(found: list[Finding], number: int) -> None:
    which = "first step" if number == 1 else f"first {number} steps"
    lines = "\n".join(f"- {finding}" for finding in found)
    text = f"neon's audit of the {which} (attach(..., audit=False) leaves it out):\n{lines}"
    warnings.warn(text, AuditWarning, stacklevel=_caller())


def _caller() -> int:
    """How far up the code is that has made the step, as `_warn` counts."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith(_NEON):
        level, frame = level + 1, frame.f_back
    return level
