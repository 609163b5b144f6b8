"""What may watch `Model.fit`. A callback is any object with some of these methods:

- `on_fit_begin(model, num_epochs)`
- `on_epoch_end(model, epoch, cost)`: `epoch` from 0, `cost` the epoch's mean; returning True ends
  training.
- `on_evaluation(model, epoch, value)`: `value` the mean over the `eval_set` of `Callbacks`, before `on_epoch_end`.
- `on_fit_end(model)`: also after an error or Ctrl-C.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from neon.arguments import flag, positive_integer
from neon.messages import received, shown

__all__ = ["Callbacks", "ProgressBar"]

# What the documented framework's Callbacks does besides, and what to write in its place.
_ELSEWHERE = {
    "train_set": "fit has it",
    "output_file": "fit returns the costs, and eval_costs has those of eval_set",
    "save_path": "a callback saves: model.save_params(path) in its on_epoch_end",
    "serialize": "a callback saves: model.save_params(path) in its on_epoch_end",
    "model_file": "load before fit: model.load_params(path)",
    "log_token": "a callback logs, in its on_epoch_end",
}


class Callbacks:
    """Several callbacks called as one. Training ends when any of them asks for it.

    `callbacks` is a list of them; or the model, as programs of the documented framework give it: `fit` says anyway
    which model it trains. With `eval_set`, `eval_costs` has after each `eval_freq` epochs the mean over that dataset of
    `metric`, or of the cost that `fit` minimizes. With `progress_bar` (default: where the model is given) a ProgressBar
    is among the callbacks.

    Of the documented framework's other arguments `history` means nothing here, and the rest are taken at None, 0 and
    False; else `TypeError` says what to write.
    """

    def __init__(
        self,
        callbacks: nn.Module | Iterable[Any] = (),
        *,
        eval_set: Iterable[Any] | None = None,
        metric: Any = None,
        eval_freq: int | None = None,
        progress_bar: bool | None = None,
        history: int = 1,
        **others: Any,
    ) -> None:
        for name, value in others.items():
            if name not in _ELSEWHERE:
                known = [*inspect.signature(Callbacks).parameters][:-1]
                raise TypeError(f"Callbacks has no argument {shown(name, 60)}. Its arguments: {', '.join(known)}.")
            if value:
                raise TypeError(f"Callbacks takes no {name}: {_ELSEWHERE[name]}. {received(name, value)}")
        if eval_set is None and (metric is not None or eval_freq is not None):
            raise ValueError("metric and eval_freq are of an eval_set, and none is given. Give one, or leave them out.")
        has_model = isinstance(callbacks, nn.Module)
        self.callbacks: list[Any] = [] if has_model else _checked(callbacks)
        self.eval_costs: list[float] = []
        self.cost: Any = None  # what `fit` minimizes
        self._eval_set, self._metric = eval_set, metric
        self._eval_freq = 1 if eval_freq is None else positive_integer("eval_freq", eval_freq)
        if has_model if progress_bar is None else flag("progress_bar", progress_bar):
            self.callbacks.append(ProgressBar())

    def on_fit_begin(self, model: Any, num_epochs: int) -> None:
        self.call("on_fit_begin", model, num_epochs)

    def on_epoch_end(self, model: Any, epoch: int, cost: float) -> bool:
        if self._eval_set is not None and (epoch + 1) % self._eval_freq == 0:
            metric = self.cost if self._metric is None else self._metric
            self.eval_costs.append(model.eval(self._eval_set, metric))
            self.call("on_evaluation", model, epoch, self.eval_costs[-1])
        return any(answer is True for answer in self.call("on_epoch_end", model, epoch, cost))

    def on_fit_end(self, model: Any) -> None:
        self.call("on_fit_end", model)

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """The answers of every callback that has the method."""
        watching = [callback for callback in self.callbacks if hasattr(callback, method)]
        return [getattr(callback, method)(*arguments) for callback in watching]


def _checked(callbacks: Any) -> list[Any]:
    if isinstance(callbacks, str) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a list of objects, or the model. {received('callbacks', callbacks)}")
    found = list(callbacks)
    for callback in found:
        if isinstance(callback, type):
            raise TypeError(f"A callback must be an object, such as ProgressBar(). {received('callback', callback)}")
    return found


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

    def on_evaluation(self, _model: Any, _epoch: int, value: float) -> None:
        if self.progress is not None:
            self.progress.update(self.task, evaluated=f", evaluation {value:.4g}")

    def on_epoch_end(self, _model: Any, _epoch: int, cost: float) -> None:
        if self.progress is not None:
            self.progress.update(self.task, advance=1, cost=f"{cost:.4g}")

    def on_fit_end(self, _model: Any) -> None:
        if self.progress is not None:
            self.progress.stop()
