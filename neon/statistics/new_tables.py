"""For callbacks of trainers: the tables of their optimizers that are new, and where they go."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from neon.statistics.table import StatisticsTable
from neon.statistics.writers import FIGURES, check_suffix, figures

# What the optimizers of trainers, and wrappers of torch, keep the optimizer in that they wrap.
_WRAPPED = ("optimizer", "_optimizer", "optim")


def attached_within(optimizer: Any) -> Any:
    """The optimizer that takes statistics, within its wrappers; None where there is none."""
    seen: set[int] = set()
    while optimizer is not None and id(optimizer) not in seen:
        if callable(getattr(optimizer, "statistics", None)) and getattr(optimizer, "_statistics", True) is not None:
            return optimizer
        seen.add(id(optimizer))
        optimizer = next((getattr(optimizer, name) for name in _WRAPPED if hasattr(optimizer, name)), None)
    return None


class NewTables:
    """Hands each table of a training on once: to a file, or as figures to a logger.

    Args:
        path: a file that ends with .jsonl or .csv; None for the logger.
        by_layer: whether there is one row for each layer, else one for each parameter.
        columns: the figures that a logger is given.

    Raises:
        ValueError: a file that ends otherwise, or a column that has no figures.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None, *, by_layer: bool = True, columns: Sequence[str] | str = FIGURES
    ) -> None:
        if path is not None:
            check_suffix(path)
        figures(columns, [])
        self.path, self.by_layer, self.columns = path, by_layer, columns
        self._last: dict[int, tuple[int, int]] = {}  # by the place of an optimizer

    def hand_on(
        self, optimizers: Iterable[Any], log: Callable[[dict[str, float]], Any] | None, *, writes: bool
    ) -> None:
        """Write what is new, or `log` it; nothing where the process leaves that to another.

        Raises:
            ValueError: no optimizer takes statistics.
        """
        for table in self._new(optimizers):
            if not writes:
                continue
            if self.path is not None:
                table.append_to(self.path)
            elif log is not None:
                log(table.figures(self.columns))

    def _new(self, optimizers: Iterable[Any]) -> Iterator[StatisticsTable]:
        attached = [found for found in map(attached_within, optimizers) if found is not None]
        if not attached:
            raise ValueError(
                "no optimizer of the trainer takes statistics. Ask for them: attach(model, statistics=True)."
            )
        for number, optimizer in enumerate(attached):
            table = optimizer.statistics()
            if table is None or self._last.get(number) == (id(optimizer), table.step):
                continue
            self._last[number] = (id(optimizer), table.step)
            table = table.by_layer() if self.by_layer else table
            yield table if len(attached) == 1 else table.prefixed(f"optimizer_{number}")
