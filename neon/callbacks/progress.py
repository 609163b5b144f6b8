"""ProgressBar: where training is, in one line."""

from __future__ import annotations

from typing import Any

import numpy as np
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class ProgressBar:
    """Shows epochs done, the cost of the last one, the last evaluation if there are any, and the time that is left."""

    def __init__(self) -> None:
        self.progress: Progress | None = None

    def on_fit_begin(self, _model: Any, num_epochs: int) -> None:
        columns = ("epoch {task.completed:.0f}/{task.total:.0f}", "cost {task.fields[cost]}{task.fields[evaluated]}")
        texts = [TextColumn(column) for column in columns]
        self.progress = Progress(texts[0], BarColumn(), texts[1], TimeRemainingColumn())
        self.task = self.progress.add_task("fit", total=num_epochs, cost="-", evaluated="")
        self.progress.start()

    def on_evaluation(self, _model: Any, _epoch: int, value: Any) -> None:
        if self.progress is not None:
            values = " ".join(f"{number:.4g}" for number in np.ravel(value))  # of some metrics several
            self.progress.update(self.task, evaluated=f", evaluation {values}")

    def on_epoch_end(self, _model: Any, _epoch: int, cost: float) -> None:
        if self.progress is not None:
            self.progress.update(self.task, advance=1, cost=f"{cost:.4g}")

    def on_fit_end(self, _model: Any) -> None:
        if self.progress is not None:
            self.progress.stop()
