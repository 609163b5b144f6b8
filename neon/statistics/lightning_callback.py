"""A callback for Lightning's Trainer, which hands on what the steps of neon's optimizers did."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from neon.statistics.new_tables import NewTables
from neon.statistics.writers import FIGURES

# Lightning comes as two packages with a class of their own each.
_PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def _bases() -> tuple[type, ...]:
    """`Callback` of the package that the program has imported; else of those that are installed."""
    packages = [name for name in _PACKAGES if sys.modules.get(name)]
    packages = packages or [name for name in _PACKAGES if find_spec(name.partition(".")[0])]
    if not packages:
        raise ImportError("LightningStatistics needs Lightning. Run: pip install lightning")
    return tuple(import_module(name).Callback for name in packages)


if TYPE_CHECKING:
    from pytorch_lightning import Callback
else:
    Callback = type("Callback", _bases(), {})


class LightningStatistics(Callback):
    """Hands on each new table of the trainer's optimizers, to a file or to the trainer's loggers.

    `Trainer(callbacks=[LightningStatistics("run.jsonl")])`, with an optimizer that is attached with `statistics`.
    One process writes. Several optimizers are told apart by the names of their layers: `optimizer_0.body.1`.

    Args:
        path: a file that ends with .jsonl or .csv, to which lines are appended; None for the trainer's loggers.
        by_layer: whether there is one row for each layer, else one for each parameter.
        columns: the figures that loggers are given.

    Raises:
        ValueError: a file that ends otherwise.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        by_layer: bool = True,
        columns: Sequence[str] | str = FIGURES,
    ) -> None:
        super().__init__()
        self._tables = NewTables(path, by_layer=by_layer, columns=columns)

    def on_train_batch_end(self, trainer: Any, *_: Any, **__: Any) -> None:
        def log(figures: dict[str, float]) -> None:
            for logger in trainer.loggers:
                logger.log_metrics(figures, step=trainer.global_step)

        self._tables.hand_on(trainer.optimizers, log, writes=trainer.is_global_zero)
