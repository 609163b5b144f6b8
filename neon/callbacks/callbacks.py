"""What may watch `Model.fit`. A callback is any object with some of these methods:

- `on_fit_begin(model, num_epochs)`
- `on_epoch_begin(model, epoch)`, `on_minibatch_begin(model, epoch, minibatch)`, `on_minibatch_end(model, epoch,
  minibatch)`: all from 0.
- `on_epoch_end(model, epoch, cost)`: `epoch` from 0, `cost` the epoch's mean; returning True ends
  training.
- `on_evaluation(model, epoch, value)`: `value` the mean over the `eval_set` of `Callbacks`, before `on_epoch_end`.
- `on_loss(model, epoch, cost)`: after it, `cost` the mean over the `eval_set` of what `fit` minimizes, whatever the
  metric is; returning True ends training.
- `on_fit_end(model)`: also after an error or Ctrl-C.

Subclasses of `Callback` are called as the documented framework calls them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any

from torch import nn

from neon.arguments import flag, positive_integer, whole_number
from neon.callbacks.documented import method_of
from neon.callbacks.progress import ProgressBar
from neon.callbacks.saving import EarlyStopCallback, SaveBestStateCallback, SerializeModelCallback
from neon.data import ArrayIterator
from neon.messages import received, shown
from neon.not_built import instead_of
from neon.old_paths import names_of

__all__ = ["Callbacks"]


class Callbacks:
    """Several callbacks called as one. Training ends when any of them asks for it.

    Args:
        callbacks: a list of them; or the model, as programs of the documented framework give it: `fit` says anyway
            which model it trains.
        eval_set: a dataset. `eval_costs` has after each `eval_freq` epochs (default 1) the mean over it of `metric`, or
            of the cost that `fit` minimizes, with what weights are at evaluation: averages, where there are any.
        progress_bar: whether a ProgressBar is among the callbacks. Default: where the model is given.
        save_path: the file that the model is saved to, as SerializeModelCallback does it, every `serialize` epochs
            (0, the default, counts as 1) with the newest `history` files kept (default 1).
        model_file: a file of `Model.save_params`, loaded when `fit` begins. The `num_epochs` of `fit` are then those
            of the whole training: after a file that was saved after 3 epochs, 7 more of 10. An ArrayIterator that has
            made no pass yet goes on with the order of that epoch, and torch's random numbers go on.

    `train_set` and `log_token` mean nothing here. `output_file` and `multicost=True` are refused.

    Raises `ValueError` or `TypeError` with what to write instead.
    """

    def __init__(
        self,
        callbacks: nn.Module | Iterable[Any] = (),
        train_set: Any = None,
        *,
        eval_set: Iterable[Any] | None = None,
        metric: Any = None,
        eval_freq: int | None = None,
        progress_bar: bool | None = None,
        save_path: str | os.PathLike[str] | None = None,
        serialize: int = 0,
        history: int = 1,
        model_file: str | os.PathLike[str] | None = None,
        output_file: Any = None,
        log_token: Any = None,
        multicost: bool = False,
        **unknown: Any,
    ) -> None:
        _refuse(unknown, output_file, multicost)
        if eval_set is None and (metric is not None or eval_freq is not None):
            raise ValueError("metric and eval_freq are of an eval_set, and none is given. Give one, or leave them out.")
        has_model = isinstance(callbacks, nn.Module)
        self.callbacks: list[Any] = []
        self.callback_data: dict[str, Any] = {}
        self.eval_costs: list[float] = []
        self.cost: Any = None  # what `fit` minimizes
        self.evaluating: Callable[[], AbstractContextManager[Any]] = nullcontext  # puts views in the place of weights
        self.model_file = model_file
        self._eval_set, self._metric = eval_set, metric
        self._eval_freq = 1 if eval_freq is None else positive_integer("eval_freq", eval_freq)
        for callback in () if has_model else _listed(callbacks):
            self.add_callback(callback)
        if has_model if progress_bar is None else flag("progress_bar", progress_bar):
            self.add_callback(ProgressBar())
        saver = _saver(save_path, serialize, history)
        if saver is not None:
            self.add_callback(saver)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(instead_of(name, "Callbacks") or f"'Callbacks' object has no attribute {name!r}")

    def add_callback(self, callback: Any, insert_pos: int | None = None) -> None:
        """Add a callback, after the others or in the given place of `callbacks`: they are called in that order."""
        if isinstance(callback, type):
            raise TypeError(f"A callback must be an object, such as ProgressBar(). {received('callback', callback)}")
        if self._eval_set is None and hasattr(callback, "on_loss"):
            raise ValueError(
                f"{type(callback).__name__} goes by the costs on an eval_set, and none is given. Write "
                "Callbacks(model, eval_set=...)."
            )
        place = len(self.callbacks) if insert_pos is None else whole_number("insert_pos", insert_pos)
        self.callbacks.insert(place, callback)

    def add_early_stop_callback(self, stop_func: Callable[[Any, float], tuple[Any, bool]]) -> None:
        """End training when `stop_func(state, cost) -> (state, stop)` says so, as EarlyStopCallback describes it."""
        self.add_callback(EarlyStopCallback(stop_func))

    def add_save_best_state_callback(self, path: str | os.PathLike[str]) -> None:
        """Save the model whenever its cost on the `eval_set` is the least so far."""
        self.add_callback(SaveBestStateCallback(path))

    def resume(self, model: Any, num_epochs: int, dataset: Any = None) -> int:
        """Load `model_file`, where there is one. Returns how many epochs `fit` is to train for."""
        if self.model_file is None:
            return num_epochs
        model.load_params(self.model_file, random_state=True)
        if isinstance(dataset, ArrayIterator) and dataset.passes == 0:  # a new one: its orders go on too
            dataset.passes = model.epoch
        return max(0, num_epochs - model.epoch)

    def on_fit_begin(self, model: Any, num_epochs: int) -> None:
        self.call("on_fit_begin", model, num_epochs)

    def on_epoch_end(self, model: Any, epoch: int, cost: float) -> bool:
        answers = []
        if self._eval_set is not None and (epoch + 1) % self._eval_freq == 0:
            answers += self._evaluate(model, epoch, self._eval_set)
        answers += self.call("on_epoch_end", model, epoch, cost)
        return any(answer is True for answer in answers)

    def _evaluate(self, model: Any, epoch: int, eval_set: Iterable[Any]) -> list[Any]:
        value = self._measure(model, eval_set, self.cost if self._metric is None else self._metric)
        self.eval_costs.append(value)
        self.call("on_evaluation", model, epoch, value)
        if not self.methods("on_loss"):
            return []
        cost = value if self._metric is None else self._measure(model, eval_set, self.cost)
        return self.call("on_loss", model, epoch, cost)

    def _measure(self, model: Any, eval_set: Iterable[Any], metric: Any) -> Any:
        with self.evaluating():
            return model.eval(eval_set, metric)

    def on_fit_end(self, model: Any) -> None:
        with ExitStack() as all_of_them:  # each is called, whatever another raises
            for method in reversed(self.methods("on_fit_end")):
                all_of_them.callback(method, model)

    def methods(self, name: str) -> list[Callable[..., Any]]:
        """The method of this name of every callback that has it."""
        found = [method_of(callback, name, self.callback_data) for callback in self.callbacks]
        return [method for method in found if method is not None]

    def minibatch_hooks(self) -> tuple[list[Callable[..., Any]], list[Callable[..., Any]]]:
        """What is called before and after each minibatch: for most training nothing."""
        return self.methods("on_minibatch_begin"), self.methods("on_minibatch_end")

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """The answers of every callback that has the method."""
        return [method(*arguments) for method in self.methods(name)]


def _refuse(unknown: dict[str, Any], output_file: Any, multicost: Any) -> None:
    for name in unknown:
        known = [*inspect.signature(Callbacks).parameters][:-1]
        raise TypeError(f"Callbacks has no argument {shown(name, 60)}. Its arguments: {', '.join(known)}.")
    if output_file:
        raise TypeError(
            "Callbacks takes no output_file: fit returns the costs, and eval_costs has those of eval_set. "
            f"{received('output_file', output_file)}"
        )
    if flag("multicost", multicost):
        raise TypeError("Callbacks takes no multicost: a Model here has a single cost. Received: multicost=True.")


def _saver(save_path: Any, serialize: Any, history: Any) -> SerializeModelCallback | None:
    """What saves the model, where it is to be saved."""
    every, kept = whole_number("serialize", serialize), whole_number("history", history)
    if save_path is None:
        if every:
            raise ValueError(f"serialize needs a save_path, the file to save to. {received('serialize', serialize)}")
        return None
    return SerializeModelCallback(save_path, max(1, every), max(1, kept))


def _listed(callbacks: Any) -> list[Any]:
    if isinstance(callbacks, str) or not isinstance(callbacks, Iterable):
        raise TypeError(f"callbacks must be a list of objects, or the model. {received('callbacks', callbacks)}")
    return list(callbacks)


__getattr__ = names_of("neon.callbacks", __name__)
