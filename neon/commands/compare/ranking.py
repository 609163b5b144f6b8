"""The final table, and the same numbers as a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table
from rich.text import Text

from neon.commands.compare.curves import Result, decimal, percent
from neon.commands.output import new_table, write_json

ABSENT = "-"
CAPTION = "best, final: validation accuracy; loss: of validation, final; step: median time of step()"


def ranked(results: Sequence[Result], target: float) -> list[Result]:
    """Best first: by best accuracy, then by epochs to the target; what diverged comes last."""
    return sorted(results, key=lambda r: (r.diverged, -(r.best_accuracy or 0.0), r.epochs_to(target) or math.inf))


def result_table(results: Sequence[Result], target: float, title: str) -> Table:
    """One row per optimizer, best first; in each column the best number of what did not diverge is bold."""
    rows = ranked(results, target)
    # What a column shows of each row, how it is written, and which of its numbers is the best.
    columns: dict[str, tuple[Sequence[float | None], Callable[[float], str], Callable[..., float]]] = {
        "best": ([row.best_accuracy for row in rows], percent, max),
        "final": ([_last(row.accuracy) for row in rows], percent, max),
        "loss": ([_last(row.validation_loss) for row in rows], decimal, min),
        "step\nµs": ([row.median_step_us for row in rows], "{:.0f}".format, min),
        f"epochs\nto {100 * target:g} %": ([row.epochs_to(target) for row in rows], "{:.0f}".format, min),
    }
    table = new_table(Text(title), CAPTION)
    table.add_column("optimizer", overflow="fold")
    cells = [[Text(row.optimizer) for row in rows]]
    for heading, (numbers, write, best_of) in columns.items():
        table.add_column(heading, justify="right", no_wrap=True)
        rivals = [number for row, number in zip(rows, numbers, strict=True) if number is not None and not row.diverged]
        best = best_of(rivals, default=math.nan)
        cells.append([Text(ABSENT if n is None else write(n), "bold" if n == best else "") for n in numbers])
    if any(row.diverged for row in rows):
        table.add_column("status")
        cells.append([Text(row.status if row.diverged else "", "red") for row in rows])
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table


def save_results(path: Path, results: Sequence[Result], target: float, title: str) -> None:
    """Write what the table shows, and the curves, as JSON."""
    rows = [
        {
            **asdict(result),
            "best_accuracy": result.best_accuracy,
            "median_step_us": result.median_step_us,
            "epochs_to_target": result.epochs_to(target),
        }
        for result in ranked(results, target)
    ]
    write_json(path, {"title": title, "target": target, "results": rows})


def _last(values: list[float]) -> float | None:
    return values[-1] if values else None
