"""The final table, and the same numbers as a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
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


@dataclass(frozen=True)
class Column:
    """One number of each result, how it is written, and whether more of it is better."""

    heading: str
    number: Callable[[Result], float | None]
    write: Callable[[float], str]
    higher_is_better: bool = False

    def cells(self, rows: Sequence[Result]) -> list[Text]:
        """The texts of the column; the best number of what did not diverge is bold."""
        values = [self.number(row) for row in rows]
        rivals = [value for row, value in zip(rows, values, strict=True) if value is not None and not row.diverged]
        best = (max if self.higher_is_better else min)(rivals, default=math.nan)
        return [
            Text(ABSENT if value is None else self.write(value), "bold" if value == best else "") for value in values
        ]


def result_table(results: Sequence[Result], target: float, title: str) -> Table:
    """One row per optimizer, best first."""
    rows = ranked(results, target)
    columns = (
        Column("best", lambda row: row.best_accuracy, percent, higher_is_better=True),
        Column("final", lambda row: _last(row.accuracy), percent, higher_is_better=True),
        Column("loss", lambda row: _last(row.validation_loss), decimal),
        Column("step\nµs", lambda row: row.median_step_us, "{:.0f}".format),
        Column(f"epochs\nto {100 * target:g} %", lambda row: row.epochs_to(target), "{:.0f}".format),
    )
    table = new_table(Text(title), CAPTION)
    table.add_column("optimizer", overflow="fold")
    cells = [[Text(row.optimizer) for row in rows]]
    for column in columns:
        table.add_column(column.heading, justify="right", no_wrap=True)
        cells.append(column.cells(rows))
    if any(row.diverged for row in rows):
        table.add_column("status")
        cells.append([Text(row.status if row.diverged else "", "red") for row in rows])
    for row in zip(*cells, strict=True):
        table.add_row(*row)
    return table


def save_results(path: Path, results: Sequence[Result], target: float, title: str) -> None:
    """Write what the table shows, and the curves, as JSON."""
    rows = [
        asdict(result)
        | {
            "best_accuracy": result.best_accuracy,
            "median_step_us": result.median_step_us,
            "epochs_to_target": result.epochs_to(target),
        }
        for result in ranked(results, target)
    ]
    write_json(path, {"title": title, "target": target, "results": rows})


def _last(values: list[float]) -> float | None:
    return values[-1] if values else None
