"""The comparison as it happens: one row per optimizer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from neon.commands.compare.curves import Result, decimal, percent
from neon.commands.output import print_line

REFRESH_SECONDS = 0.1
BAR_WIDTH = 14


class ProgressView:
    """Shows each result while it grows; a log line per optimizer where there is no terminal.

    It is a `Watcher`: call it with a result and the position in epochs.
    """

    def __init__(self, console: Console, optimizers: Sequence[str], labels: Sequence[str], epochs: int) -> None:
        self._console = console
        self._labels = dict(zip(optimizers, labels, strict=True))
        self._epochs = epochs
        self._seen: dict[str, tuple[Result, float]] = {}
        self._drawn_at = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True)

    @contextmanager
    def showing(self) -> Iterator[ProgressView]:
        """Draw inside the block; leave the terminal clean after it."""
        if self._console.is_terminal:
            self._live.start()
        try:
            yield self
        finally:
            self._live.stop()

    def __call__(self, result: Result, position: float) -> None:
        self._seen[result.optimizer] = (result, position)
        if not self._console.is_terminal:
            if result.done:
                text = f"{self._labels[result.optimizer]}: {result.status}, validation accuracy "
                print_line(self._console, text + (percent(result.accuracy[-1]) if result.accuracy else "-"))
            return
        now = time.monotonic()
        if result.done or now - self._drawn_at >= REFRESH_SECONDS:
            self._drawn_at = now
            self._live.update(self._table(), refresh=True)

    def standing(self) -> str:
        """How far everything is, in one sentence, for someone who interrupts."""
        finished = sum(result.done for result, _ in self._seen.values())
        text = f"{finished} of {len(self._labels)} optimizers finished"
        for result, _ in self._seen.values():
            if not result.done:
                label = self._labels[result.optimizer]
                text += f", {label} kept up to epoch {result.epochs} of {self._epochs}"
        return text

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        table.add_column("optimizer", no_wrap=True, overflow="ellipsis")
        table.add_column("progress", width=BAR_WIDTH)
        for heading in ("epoch", "train loss", "accuracy"):
            table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
        table.add_column("", no_wrap=True)
        for optimizer, label in self._labels.items():
            if optimizer not in self._seen:
                table.add_row(Text(label), "", "", "", "", "[dim]waiting[/]")
                continue
            result, position = self._seen[optimizer]
            table.add_row(
                Text(label),
                ProgressBar(total=self._epochs, completed=position, width=BAR_WIDTH),
                f"{result.epochs}/{self._epochs}",
                decimal(result.train_loss[-1]) if result.train_loss else "",
                percent(result.accuracy[-1]) if result.accuracy else "",
                f"[red]{result.status}[/]" if result.diverged else "",
            )
        return table
