"""A callback for Hugging Face's Trainer, which hands on what the steps of neon's optimizer did."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback

from neon.statistics.new_tables import NewTables
from neon.statistics.writers import FIGURES


class TrainerStatistics(TrainerCallback):
    """Hands on each new table of the trainer's optimizer, to a file or to what the trainer reports to.

    `Trainer(..., callbacks=[TrainerStatistics("run.jsonl")])`, with an optimizer that is attached with `statistics`;
    or `trainer.add_callback(TrainerStatistics(log=trainer.log))`, which also puts every figure into the trainer's
    `log_history` and on its progress bar. One process writes.

    Args:
        path: a file that ends with .jsonl or .csv, to which lines are appended.
        log: the trainer's `log`, where there is no path.
        by_layer: whether there is one row for each layer, else one for each parameter.
        columns: the figures that `log` is given.

    Raises:
        ValueError: a file that ends otherwise; or neither or both of `path` and `log`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        log: Callable[[dict[str, float]], Any] | None = None,
        by_layer: bool = True,
        columns: Sequence[str] | str = FIGURES,
    ) -> None:
        if (path is None) == (log is None):
            raise ValueError(
                "TrainerStatistics takes a path, such as 'run.jsonl', or log=trainer.log; give one of them."
            )
        self._tables = NewTables(path, by_layer=by_layer, columns=columns)
        self._log = log

    def on_step_end(self, args: Any, state: Any, control: Any, *, optimizer: Any = None, **_: Any) -> None:
        should_log = control.should_log  # which a trainer's `log` takes for done
        self._tables.hand_on([optimizer], self._log, writes=state.is_world_process_zero)
        control.should_log = should_log
