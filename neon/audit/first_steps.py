"""The first steps of an optimizer, which are watched: what is wrong is said once, at the first and the hundredth."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

from neon.audit.checks import findings
from neon.audit.clips import look_at_norms, look_at_values
from neon.audit.findings import AuditWarning, Finding
from neon.audit.rounding import Before
from neon.audit.seen import LAST, Record, Seen
from neon.audit.silent import Calls
from neon.stepping.groups import has_no_rate
from neon.stepping.sharding import is_abstract

# The steps after which norms are read, which waits for a device; at the first and the last everything is looked at.
LOOKS = (1, 2, 4, 8, 16, 32, 64, LAST)
_NEON = ("neon.", "torch.")


class FirstSteps:
    """Goes around each of the first steps; `record` is what they have shown."""

    def __init__(self) -> None:
        self.record = Record()
        self._said: set[Finding] = set()
        self._calls: Calls | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to watch any more."""
        return self.record.is_over

    def around(self, step: Callable[[], Any], see: Callable[[], Seen]) -> Any:
        """Make a step, and look at it where that is due. A step that changed nothing does not count."""
        record, number = self.record, self.record.steps + 1
        if number not in LOOKS and number != LAST - 1:
            result = step()
            record.steps = number
            return result
        seen = see()
        before = Before(seen) if number == LAST else None
        decides = number in (1, LAST)
        left_out = seen.optimizer.skipped_steps if decides else 0
        result = step()
        if decides and (seen.optimizer.skipped_steps != left_out or not _has_begun(seen)):
            return result
        record.steps = number
        if number == LAST - 1:
            self._calls = Calls(seen)
            return result
        self._look(see(), number, before)
        return result

    def _look(self, seen: Seen, number: int, before: Before | None) -> None:
        look_at_norms(seen, self.record)
        if number == 1:
            self.record.rates = [seen.rate(place) for place in range(len(seen.groups))]
        if number in (1, LAST):
            look_at_values(seen, self.record)
        if before is not None:
            before.compare(self.record)
        if number == LAST and self._calls is not None:
            self._calls.end(seen, self.record)
            self._calls = None
        if number in (1, LAST):
            found = [finding for finding in findings(seen, number) if finding not in self._said]
            self._said.update(found)
            if found:
                _warn(found, number)


def _has_begun(seen: Seen) -> bool:
    """Whether a step has been made: not a rehearsal, nor one without any gradient."""
    params = [member.param for member in seen.members] + [param for _, param in seen.named]
    if any(map(is_abstract, params)):
        return False
    if has_no_rate(seen.optimizer):
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
