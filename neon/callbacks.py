"""What may watch `Model.fit`. A callback is any object with some of these methods:

- `on_fit_begin(model, num_epochs)`
- `on_epoch_end(model, epoch, cost)`: `epoch` from 0, `cost` the epoch's mean; returning True ends
  training.
- `on_fit_end(model)`: also after an error or Ctrl-C.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Callbacks", "ProgressBar"]


class Callbacks:
    """Several callbacks called as one. Training ends when any of them asks for it."""

    def __init__(self, callbacks: Iterable[Any]) -> None:
        self.callbacks = list(callbacks)

    def on_fit_begin(self, model: Any, num_epochs: int) -> None:
        self.call("on_fit_begin", model, num_epochs)

    def on_epoch_end(self, model: Any, epoch: int, cost: float) -> bool:
        return any(answer is True for answer in self.call("on_epoch_end", model, epoch, cost))

    def on_fit_end(self, model: Any) -> None:
        self.call("on_fit_end", model)

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """The answers of every callback that has the method."""
        watching = [callback for callback in self.callbacks if hasattr(callback, method)]
        return [getattr(callback, method)(*arguments) for callback in watching]


class ProgressBar:
    """Shows epochs done, the cost of the last one, and the time that is left."""

    def __init__(self) -> None:
        self.progress: Progress | None = None

    def on_fit_begin(self, _model: Any, num_epochs: int) -> None:
        columns = ("epoch {task.completed:.0f}/{task.total:.0f}", "cost {task.fields[cost]}")
        shown = [TextColumn(column) for column in columns]
        self.progress = Progress(shown[0], BarColumn(), shown[1], TimeRemainingColumn())
        self.task = self.progress.add_task("fit", total=num_epochs, cost="–")
        self.progress.start()

    def on_epoch_end(self, _model: Any, _epoch: int, cost: float) -> None:
        if self.progress is not None:
            self.progress.update(self.task, advance=1, cost=f"{cost:.4g}")

    def on_fit_end(self, _model: Any) -> None:
        if self.progress is not None:
            self.progress.stop()
