"""How long a run of ``neon bench`` takes still: a bar on a terminal, the end of each line where there is none."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from neon.commands.bench.kinds import KINDS
from neon.commands.bench.results import Line
from neon.commands.output import print_line

_TRUSTED = 10.0  # seconds: so much of what is expected has to be measured before this machine's pace counts for half


class TimeLeft:
    """What is expected of the lines that are left, at the pace of those before.

    Args:
        lines: all of the run, in their order.
        pace: seconds of a line by those of its kind in a quick run, before anything is known of this machine.
        limit: seconds that the run may take.
    """

    def __init__(self, console: Console, lines: Sequence[Line], pace: float, limit: float = math.inf) -> None:
        self._console, self._pace, self._limit, self._lines = console, pace, limit, len(lines)
        self._left, self._measured, self._elapsed = sum(map(_expected, lines)), 0.0, 0.0
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"))
        # Drawn between lines alone: to draw takes processor time, which contenders would miss.
        self._bar = Progress(*columns, console=console, auto_refresh=False, transient=True)
        self._task = self._bar.add_task("", total=self._left, left="")

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Say what is expected; draw inside the block, and leave the terminal clean after it."""
        print_line(self._console, f"{self._lines} lines to measure, {self}")
        if self._console.is_terminal:
            self._bar.start()
        try:
            yield
        finally:
            self._bar.stop()

    @contextmanager
    def measuring(self, line: Line) -> Iterator[None]:
        """Take the time of a line."""
        self._bar.update(self._task, description=str(line), left=str(self), refresh=True)
        start = time.perf_counter()
        yield
        self._elapsed += time.perf_counter() - start
        self._measured += _expected(line)
        self.leave_out(line)

    def leave_out(self, line: Line) -> None:
        """Wait for it no longer."""
        self._left -= _expected(line)
        self._bar.advance(self._task, _expected(line))

    def fits(self, line: Line) -> bool:
        """Whether it is expected to be measured before the run has taken as long as it may."""
        return self._elapsed + self._seconds(_expected(line)) <= self._limit

    def print(self, text: str) -> None:
        """Print a line of the run; with the time that is left where no bar shows it."""
        left = f"; {self}" if self._left > 0 and not self._console.is_terminal else ""
        print_line(self._console, text + left)

    def _seconds(self, expected: float) -> float:
        return expected * (self._elapsed + self._pace * _TRUSTED) / (self._measured + _TRUSTED)

    def __str__(self) -> str:
        """Seconds up to a minute and a half in steps of five, then minutes."""
        seconds = min(self._seconds(self._left), max(0.0, self._limit - self._elapsed))
        if seconds < 90:
            return f"about {max(5, 5 * round(seconds / 5))} s left"
        return f"about {round(seconds / 60)} min left"


def _expected(line: Line) -> float:
    return KINDS[line.kind].seconds
