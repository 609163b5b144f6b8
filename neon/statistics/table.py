"""What one step did to each parameter, as a small table: by layer, as numbers, printed, or on to where people look."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from typing import TYPE_CHECKING, Any

from neon.messages import listed, quoted
from neon.statistics.printed_rows import WIDE, printed
from neon.statistics.row import COLUMNS, Row, together
from neon.statistics.writers import APPENDED, FIGURES, append_csv, append_jsonl, check_suffix, figures

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

__all__ = ["COLUMNS", "Row", "StatisticsTable"]


@dataclass(frozen=True)
class StatisticsTable:
    """What one step did: a row for each parameter that it updated, or for each layer.

    `len`, iteration over rows, and `table["0.weight"]`. It is printed with `print`, and in colours by Rich.

    Args:
        step: the number of `optimizer.step()` calls that updated something, from 1.
        rows: one for each parameter.
    """

    step: int
    rows: Sequence[Row]

    def __post_init__(self) -> None:
        object.__setattr__(self, "rows", tuple(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __getitem__(self, parameter: str) -> Row:
        """The row of a parameter; in a table by layer, of a layer.

        Raises:
            KeyError: there is none of that name.
        """
        for row in self.rows:
            if row.parameter == parameter:
                return row
        names = [row.parameter for row in self.rows]
        near = difflib.get_close_matches(str(parameter), names, n=1)
        hint = f"Did you mean {quoted(near[0])}?" if near else f"There are: {listed(names)}."
        raise KeyError(f"no row {quoted(str(parameter))} in the statistics of step {self.step}. {hint}")

    def by_layer(self) -> StatisticsTable:
        """A table with one row for each layer, in the order of their first parameters.

        - Norms are the roots of the sums of squares; the largest |g| is the largest of all; NaN where one is NaN.
        - Shares are those of the layer's elements. Parameters that are not clipped by value count as not clipped,
          where others of the layer are.
        - The clip factors are those with the smallest product.
        - The learning rate is None where parameters differ in it.
        """
        layers: dict[str, list[Row]] = {}
        for row in self.rows:
            layers.setdefault(row.layer, []).append(row)
        return StatisticsTable(self.step, [together(layer, rows) for layer, rows in layers.items()])

    def prefixed(self, name: str) -> StatisticsTable:
        """The table with a name before all names, `generator.0.weight`: those of two optimizers may be the same."""
        named = [(row, f"{name}.{row.parameter}".rstrip("."), f"{name}.{row.layer}".rstrip(".")) for row in self.rows]
        return StatisticsTable(
            self.step, [replace(row, parameter=parameter, layer=layer) for row, parameter, layer in named]
        )

    def records(self) -> list[dict[str, Any]]:
        """A dict of the `COLUMNS` for each row."""
        return [{name: self.step if name == "step" else getattr(row, name) for name in COLUMNS} for row in self.rows]

    def to_dict(self) -> dict[str, Any]:
        """Plain Python: `{"step": 12, "parameters": {"0.weight": {"layer": "0", "gradient_norm": 0.3, ...}, ...}}`.

        NaN and infinities are floats in it; `to_jsonl` writes what JSON has no numbers for as strings.
        """
        kept = [name for name in COLUMNS if name not in ("step", "parameter")]
        parameters = {row.parameter: {name: getattr(row, name) for name in kept} for row in self.rows}
        return {"step": self.step, "parameters": parameters}

    def figures(self, columns: Sequence[str] | str = FIGURES) -> dict[str, float]:
        """One flat dict for a logger: `{"update_to_weight/0.weight": 0.001, ...}`, without what is None.

        Raises:
            ValueError: a column that is not one of `neon.statistics.writers.FIGURES`.
        """
        return figures(columns, self.records())

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a line for each row, which goes by the parameter's name.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise ImportError("to_pandas needs pandas, which is not installed. Run: pip install pandas") from error
        return pd.DataFrame.from_records(self.records(), columns=list(COLUMNS)).set_index("parameter")

    # -- to where people look --------------------------------------------------------------------------

    def to_jsonl(self, path: str | os.PathLike[str]) -> None:
        """Append a line of JSON for each row, which `neon report` reads.

        NaN and infinities, which JSON has not, are the strings "NaN", "Infinity" and "-Infinity".

        Raises:
            ValueError: the file was begun with other columns.
        """
        append_jsonl(path, COLUMNS, self.records())

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Append a line for each row, which `neon report` reads; a new file begins with the names of the columns.

        None is an empty cell. The factors of several clips are in one cell, with spaces between them.

        Raises:
            ValueError: the file was begun with other columns.
        """
        append_csv(path, COLUMNS, self.records())

    def append_to(self, path: str | os.PathLike[str]) -> None:
        """`to_jsonl` or `to_csv`, by how the name ends.

        Raises:
            ValueError: it ends otherwise, or the file was begun with other columns.
        """
        APPENDED[check_suffix(path)](path, COLUMNS, self.records())

    def to_tensorboard(self, writer: Any, columns: Sequence[str] | str = FIGURES) -> None:
        """Give a `SummaryWriter`, torch's or tensorboardX's, each figure as `update_to_weight/0.weight`.

        Raises:
            ValueError: a column that is not one of `neon.statistics.writers.FIGURES`.
        """
        for tag, value in self.figures(columns).items():
            writer.add_scalar(tag, value, self.step)

    def to_wandb(
        self, run: Any, columns: Sequence[str] | str = FIGURES, *, step: int | None = None, commit: bool | None = False
    ) -> None:
        """Log each figure to a run of Weights & Biases, or to `wandb` itself, as `update_to_weight/0.weight`.

        The step of the table is logged along, as `optimizer_step`. `step` and `commit` go on to `run.log`. Without them
        the figures wait for what the program logs next, and are in its row: so nothing is ever dropped for its step,
        but of two tables with nothing logged in between, the later replaces the earlier. `commit=True` gives each
        table a row of its own; a program that then logs with smaller steps of its own loses what it logs.

        Raises:
            ValueError: a column that is not one of `neon.statistics.writers.FIGURES`.
        """
        run.log({"optimizer_step": self.step, **self.figures(columns)}, step=step, commit=commit)

    # -- printed ---------------------------------------------------------------------------------------

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        yield printed(f"step {self.step}", self.rows, console, options)

    def __str__(self) -> str:
        from rich.console import Console

        written = StringIO()
        # However narrow the terminal is: whole lines can be searched.
        Console(file=written, width=WIDE, color_system=None, legacy_windows=False).print(self)
        return "\n".join(line.rstrip() for line in written.getvalue().splitlines())
