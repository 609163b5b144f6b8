"""What a run measured, as it stands in the file, in the tables and in the figure."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from neon.commands.bench.lines import Line
from neon.commands.bench.speed_targets import TARGETS, Target
from neon.commands.bench.timing import Measured
from neon.commands.errors import UsageError

DISTURBED_ABOVE = 0.1


@dataclass(frozen=True)
class Result:
    """One line, measured.

    Attributes:
        line: what was measured.
        seconds: for each contender, the median of a step and its quartiles.
        figures: the numbers that are compared with targets.
        details: what else explains the figures.
        busy_with_others: how many processors something else used meanwhile; None where nobody knows.
    """

    line: Line
    seconds: dict[str, dict[str, float]]
    figures: dict[str, float]
    details: dict[str, Any]
    busy_with_others: float | None

    @staticmethod
    def of(line: Line, measured: Measured) -> Result:
        spreads = {who: _spread(times) for who, times in measured.seconds.items()}
        return Result(line, spreads, measured.figures, measured.details, measured.busy)

    @property
    def disturbed(self) -> bool:
        """Whether something else used more than a tenth of a processor meanwhile, or nobody knows."""
        return self.busy_with_others is None or self.busy_with_others > DISTURBED_ABOVE

    def targets(self) -> list[tuple[Target, float]]:
        """The targets for this line, each with what was measured."""
        return [(t, self.figures[t.figure]) for t in TARGETS if t.covers(self.line) and t.figure in self.figures]

    def as_json(self) -> dict[str, Any]:
        targets = [
            {"figure": t.figure, "at_least" if t.more_is_better else "at_most": t.bound, "met": t.met(value)}
            for t, value in self.targets()
        ]
        return {**asdict(self), "targets": targets, "disturbed": self.disturbed}


def _spread(times: list[float]) -> dict[str, float]:
    low, median, high = statistics.quantiles(times, method="inclusive")
    return {"median": median, "lower_quartile": low, "upper_quartile": high, "rounds": len(times)}


@dataclass(frozen=True)
class Report:
    """All results of a run, with the machine that they are of."""

    device: dict[str, Any]
    results: list[Result]

    @property
    def disturbed(self) -> bool:
        return any(result.disturbed for result in self.results)

    def as_json(self) -> dict[str, Any]:
        return {
            "device": self.device,
            "disturbed": self.disturbed,
            "lines": [result.as_json() for result in self.results],
        }

    @staticmethod
    def load(path: Path) -> Report:
        """Read what `as_json` gave.

        Raises:
            UsageError: the file is not there, or is of something else.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            names = [field.name for field in fields(Result) if field.name != "line"]
            results = [
                Result(Line(**entry["line"]), **{name: entry[name] for name in names}) for entry in stored["lines"]
            ]
            return Report(stored["device"], results)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path} cannot be read as a result of neon bench: {error!r}.") from error
