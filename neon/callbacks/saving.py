"""Callbacks that look after the model: saved every so often, saved when it is best, stopped in time."""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from neon.arguments import positive_integer
from neon.log import logger
from neon.messages import received, shown


class SerializeModelCallback:
    """Saves the model, by `save_params`, after each `epoch_freq` epochs.

    With a `history` of 2 or more, files carry the number of the epoch, from 0, before their extension: "model_3.prm"
    for "model.prm". The newest `history` of them are kept, and `save_path` is a link to the newest.

    Raises `ValueError` where the folder of `save_path` is not there.
    """

    def __init__(self, save_path: str | os.PathLike[str], epoch_freq: int = 1, history: int = 1) -> None:
        self.save_path = _checked_path("save_path", save_path)
        self.epoch_freq = positive_integer("epoch_freq", epoch_freq)
        self.history = positive_integer("history", history)
        self.files: deque[Path] = deque()

    def on_epoch_end(self, model: Any, epoch: int, _cost: float) -> None:
        if (epoch + 1) % self.epoch_freq:
            return
        if self.history == 1:
            if self._is_ours(self.save_path):  # of a training before: that file has the number of its own epoch
                self.save_path.unlink()
            model.save_params(self.save_path)
            return
        path = self.save_path.with_name(f"{self.save_path.stem}_{epoch}{self.save_path.suffix}")
        model.save_params(path)
        if path not in self.files:
            self.files.append(path)
        _link(self.save_path, path)
        while len(self.files) > self.history:
            with suppress(FileNotFoundError):  # someone else has
                self.files.popleft().unlink()

    def _is_ours(self, path: Path) -> bool:
        """Whether it is a link to a file with the number of an epoch."""
        if not path.is_symlink():
            return False
        stem, _, number = (target := path.readlink()).stem.rpartition("_")
        return target == Path(f"{stem}_{number}{path.suffix}") and stem == path.stem and number.isdigit()


class SaveBestStateCallback:
    """Saves the model, by `save_params`, after each evaluation whose cost on the `eval_set` is less than all before.

    Raises `ValueError` where the folder of `path` is not there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.best_path = _checked_path("path", path)
        self.best_cost: float | None = None

    def on_loss(self, model: Any, _epoch: int, cost: float) -> None:
        if self.best_cost is None or cost < self.best_cost:
            model.save_params(self.best_path)
            self.best_cost = cost


class EarlyStopCallback:
    """Ends training when `stop_func` says so.

    After each evaluation `stop_func(state, cost)` gets what it returned as state before, None at first, and the cost
    on the `eval_set`; it returns (state, whether to stop).
    """

    def __init__(self, stop_func: Callable[[Any, float], tuple[Any, bool]]) -> None:
        if isinstance(stop_func, type) or not callable(stop_func):
            raise TypeError(f"stop_func must be a function of (state, cost). {received('stop_func', stop_func)}")
        self.stop_func = stop_func
        self.stop_state: Any = None

    def on_loss(self, _model: Any, epoch: int, cost: float) -> bool:
        answer = self.stop_func(self.stop_state, cost)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise TypeError(f"stop_func must return (state, whether to stop). Received: {shown(answer)}")
        self.stop_state, stop = answer
        if stop:
            logger.warning("Training is stopped early, after %d epochs with a cost of %.6g.", epoch + 1, cost)
        return bool(stop)


def _checked_path(name: str, path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"{name} must be the path of a file. {received(name, path)}")
    found = Path(path)  # type: ignore[arg-type]
    if found.is_dir() or not found.absolute().parent.is_dir():
        raise ValueError(f"{name} must be the path of a file in a folder that is there. {received(name, path)}")
    return found


def _link(link: Path, target: Path) -> None:
    """Have `link` lead to a file beside it. It leads to the previous one or to this one at any time."""
    unfinished = link.with_name(f".{link.name}.{uuid.uuid4().hex}.unfinished")
    try:
        unfinished.symlink_to(target.name)
        os.replace(unfinished, link)
    except OSError as error:  # not every file system has links
        unfinished.unlink(missing_ok=True)
        logger.warning("%s could not be made a link to %s: %s", link, target.name, error)
