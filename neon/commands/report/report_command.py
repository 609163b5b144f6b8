"""What ``neon report`` does, from the file of a run to the figures it leaves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from neon.commands.errors import SettingsError
from neon.commands.figures import require_matplotlib
from neon.commands.output import print_line, print_written, require_writable
from neon.commands.report.heat_figure import save_heat_maps
from neon.commands.report.run_file import Run, read_run
from neon.statistics.row import THE_MODEL

_ROWS = ("layer", "parameter")


def run_command(path: Path, by: str, title: str | None, output: Path, console: Console) -> list[Path]:
    """Read the file of a run, draw it, and say what stands out.

    Args:
        path: written by `StatisticsTable.to_jsonl`, or by `to_csv` where it ends with .csv.
        by: what has a row of its own, "layer" or "parameter".
        title: of the figure; None for the name of the file.
        output: the directory for the figures.
        console: where the command tells what it does.

    Raises:
        UsageError: something in the request cannot be used; nothing was written.
    """
    if by not in _ROWS:
        raise SettingsError(f"--by must be layer or parameter; received {by!r}.")
    require_matplotlib("neon report")
    run = read_run(path, by=by)
    require_writable(output)
    if run.cut_off:
        print_line(console, f"{path}: the last line is incomplete, and left out.")
    if run.again:
        lines = "1 line is" if run.again == 1 else f"{run.again:,} lines are"
        print_line(
            console,
            f"{path}: {lines} on a parameter and step of a later line, and left out: of a run that was resumed, "
            "or of optimizers with the same names (table.prefixed tells them apart).",
        )
    written = save_heat_maps(output, run, path.name if title is None else title)
    counts = ((len(run.steps), "step"), (len(run.rows), by))
    print_line(console, ", ".join(f"{count:,} {word}{'s' * (count > 1)}" for count, word in counts))
    for name, grid in (("update/weight", run.update_to_weight), ("gradient", run.gradient)):
        print_line(console, f"{name}: {_extremes(run, grid)}")
    print_written(console, written)
    return written


def _extremes(run: Run, grid: NDArray[np.float64]) -> str:
    """The least and the largest number, where and when, and how many are none."""
    finite = run.there & np.isfinite(grid)
    texts = []
    if finite.any():
        least, largest = np.where(finite, grid, np.inf).argmin(), np.where(finite, grid, -1).argmax()
        for word, place in (("least", least), ("largest", largest)):
            row, column = np.unravel_index(place, grid.shape)
            name = run.rows[row] or THE_MODEL
            texts.append(f"{word} {grid[row, column]:.3g} ({name}, step {run.steps[column]:,})")
    for word, found in (("NaN", run.there & np.isnan(grid)), ("infinite", run.there & np.isinf(grid))):
        if found.any():
            row, column = np.argwhere(found.T)[0][::-1]
            first = f"first in {run.rows[row] or THE_MODEL}, step {run.steps[column]:,}"
            texts.append(f"{word}: {found.sum():,} ({first})")
    return ", ".join(texts)
