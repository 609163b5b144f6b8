"""Callback: the documented framework's base class, whose methods take other arguments than neon's callbacks do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from neon.arguments import positive_integer, whole_number
from neon.backends import NervanaObject

Frequency = int | list[int] | None


class Callback(NervanaObject):
    """A callback in the documented framework's form: a subclass defines some of these methods.

    `callback_data` is a dict that all such callbacks of a `Callbacks` share, empty at first. `epoch` and `minibatch`
    count from 0. A callback ends training after the epoch by `model.finished = True`.

    Args:
        epoch_freq: at which epochs `on_epoch_begin` and `on_epoch_end` are called: each n-th, a list of epochs, or
            None for none. Default 1.
        minibatch_freq: the same of minibatches within an epoch. Default 1.
    """

    epoch_freq: Frequency = 1
    minibatch_freq: Frequency = 1

    def __init__(self, epoch_freq: Frequency = 1, minibatch_freq: Frequency = 1) -> None:
        super().__init__()
        self.epoch_freq = _frequency("epoch_freq", epoch_freq)
        self.minibatch_freq = _frequency("minibatch_freq", minibatch_freq)

    def on_train_begin(self, callback_data: dict[str, Any], model: Any, epochs: int) -> None:
        """Before the first epoch of a fit of `epochs` epochs."""

    def on_train_end(self, callback_data: dict[str, Any], model: Any) -> None:
        """After a fit, also after an error or Ctrl-C."""

    def on_epoch_begin(self, callback_data: dict[str, Any], model: Any, epoch: int) -> None:
        """Before an epoch."""

    def on_epoch_end(self, callback_data: dict[str, Any], model: Any, epoch: int) -> None:
        """After an epoch."""

    def on_minibatch_begin(self, callback_data: dict[str, Any], model: Any, epoch: int, minibatch: int) -> None:
        """Before the model sees a minibatch."""

    def on_minibatch_end(self, callback_data: dict[str, Any], model: Any, epoch: int, minibatch: int) -> None:
        """After the optimizer's step on a minibatch."""

    def should_fire(self, callback_data: dict[str, Any], model: Any, time: int, freq: Any) -> bool:
        """Whether a callback of this frequency is called at this epoch or minibatch, counted from 0."""
        if isinstance(freq, (list, tuple)):
            return time in freq
        return freq is not None and (time + 1) % freq == 0


def _frequency(name: str, value: Any) -> Frequency:
    if isinstance(value, (list, tuple)):
        return [whole_number(name, time) for time in value]
    return None if value is None else positive_integer(name, value)


class GANCostCallback(Callback):
    """Keeps what a `neon.models.GAN` costs, in `callback_data`: for each step of the generator since training began its
    number, from 1, in the list "gan/gen_iter", and the discriminator's mean cost in the list "gan/cost_dis".
    """

    def on_train_begin(self, callback_data: dict[str, Any], model: Any, epochs: int) -> None:
        callback_data["gan/gen_iter"], callback_data["gan/cost_dis"] = [], []

    def on_minibatch_end(self, callback_data: dict[str, Any], model: Any, epoch: int, minibatch: int) -> None:
        if model.last_gen_batch > 0 and model.current_batch == model.last_gen_batch:
            callback_data["gan/gen_iter"].append(model.gen_iter)
            callback_data["gan/cost_dis"].append(float(model.cost_dis))


# neon's method: the documented framework's, how many of neon's arguments after the model it takes, and which frequency
# it goes by, where it goes by one.
_DOCUMENTED = {
    "on_fit_begin": ("on_train_begin", 1, None),
    "on_epoch_begin": ("on_epoch_begin", 1, "epoch_freq"),
    "on_minibatch_begin": ("on_minibatch_begin", 2, "minibatch_freq"),
    "on_minibatch_end": ("on_minibatch_end", 2, "minibatch_freq"),
    "on_epoch_end": ("on_epoch_end", 1, "epoch_freq"),
    "on_fit_end": ("on_train_end", 0, None),
}


def method_of(callback: Any, name: str, callback_data: dict[str, Any]) -> Callable[..., Any] | None:
    """A callback's method in neon's form; None where it has none of its own."""
    if not isinstance(callback, Callback):
        return getattr(callback, name, None)
    documented, count, frequency = _DOCUMENTED.get(name, ("", 0, None))
    method = getattr(callback, documented, None)
    if method is None or getattr(method, "__func__", None) is getattr(Callback, documented):
        return None

    def call(model: Any, *arguments: Any) -> None:
        if frequency is None or callback.should_fire(
            callback_data, model, arguments[count - 1], getattr(callback, frequency)
        ):
            method(callback_data, model, *arguments[:count])

    return call
