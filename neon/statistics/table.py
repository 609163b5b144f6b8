"""What one step did to each parameter, as a small table: by layer, as numbers, printed, or on to where people look."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from neon.messages import listed, quoted

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table as RichTable


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What one step did to one parameter; in a table by layer, to all parameters of a layer together.

    Attributes:
        parameter: its name; in a table by layer, the layer's.
        layer: the module's name, which is the parameter's without its last part; "" for those of the model itself.
        elements: how many there are.
        gradient_norm: of the gradient, unscaled and before clipping.
        weight_norm: of the stored weight, before the step.
        update_norm: of the stored weight after the step minus that before it.
        largest_gradient: the largest |g|.
        unmoved: share of the elements, 0 to 1, whose stored weight is the same after the step.
        lost: share of the elements whose stored weight is the same although their gradient is not zero.
        clipped: share of the elements that were clipped by value; None where the optimizer does not clip by value.
        clip_factors: what each clip by norm multiplied the gradient by, the outermost first; () where there is none.
        learning_rate: with `lr_scale` and schedule; None where the rule has none.
    """

    parameter: str
    layer: str
    elements: int
    gradient_norm: float
    weight_norm: float
    update_norm: float
    largest_gradient: float
    unmoved: float
    lost: float
    clipped: float | None = None
    clip_factors: tuple[float, ...] = ()
    learning_rate: float | None = None

    @property
    def update_to_weight(self) -> float:
        """The update's norm over the weight's: 0 where both are 0, inf where only the weight's is."""
        if self.weight_norm == 0:
            return self.update_norm if self.update_norm == 0 or math.isnan(self.update_norm) else math.inf
        return self.update_norm / self.weight_norm

    @property
    def clip_factor(self) -> float | None:
        """What all clips by norm together multiplied the gradient by; None where there is none."""
        return math.prod(self.clip_factors) if self.clip_factors else None


# What the layer of the model's own parameters is called where it is shown; its name is "".
THE_MODEL = "(model)"
# The columns of everything that is written, in their order.
COLUMNS = (
    "step",
    "parameter",
    "layer",
    "elements",
    "gradient_norm",
    "weight_norm",
    "update_norm",
    "update_to_weight",
    "largest_gradient",
    "unmoved",
    "lost",
    "clipped",
    "clip_factor",
    "clip_factors",
    "learning_rate",
)


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
        return StatisticsTable(self.step, [_together(layer, rows) for layer, rows in layers.items()])

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

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` with a line for each row, which goes by the parameter's name.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError("to_pandas needs pandas, which is not installed. Run: pip install pandas") from error
        return pd.DataFrame.from_records(self.records(), columns=list(COLUMNS)).set_index("parameter")

    # -- printed ---------------------------------------------------------------------------------------

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RichTable]:
        """Columns that the terminal has no room for are left out, and named below."""
        columns = {
            head: [_text(getattr(row, name), text) for row in self.rows]
            for head, name, text in _PRINTED
            if name not in _WHERE_GIVEN or any(getattr(row, name) is not None for row in self.rows)
        }
        without: list[str] = []
        printed = self._printed(columns, without)
        for head in (head for head in _FIRST_LEFT_OUT if head in columns):
            if printed.__rich_measure__(console, options.update(max_width=_WIDE)).maximum <= options.max_width:
                break
            without.append(head)
            printed = self._printed(columns, without)
        yield printed

    def _printed(self, columns: Mapping[str, Sequence[str]], without: Sequence[str]) -> RichTable:
        from rich import box
        from rich.table import Table
        from rich.text import Text

        layers = all(row.parameter == row.layer for row in self.rows)
        caption = f"no room for: {', '.join(without)}" if without else None
        printed = Table(title=f"step {self.step}", caption=caption, box=box.SIMPLE_HEAD, pad_edge=False)
        printed.title_justify = printed.caption_justify = "left"
        # As `Text`, for a name may hold what Rich would read as markup.
        names = [Text(row.parameter or THE_MODEL, overflow="fold") for row in self.rows]
        printed.add_column("layer" if layers else "parameter")
        kept = {head: texts for head, texts in columns.items() if head not in without}
        for head in kept:
            printed.add_column(head, justify="right", no_wrap=True)
        for cells in zip(names, *kept.values(), strict=True):
            printed.add_row(*cells)
        return printed

    def __str__(self) -> str:
        from rich.console import Console

        written = StringIO()
        # However narrow the terminal is: whole lines can be searched.
        Console(file=written, width=_WIDE, color_system=None, legacy_windows=False).print(self)
        return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


# -- by layer --------------------------------------------------------------------------------------


def _together(layer: str, rows: Sequence[Row]) -> Row:
    elements = sum(row.elements for row in rows)

    def share(of: Callable[[Row], float | None]) -> float:
        found = math.fsum(row.elements * (of(row) or 0.0) for row in rows)
        return found / elements if elements else 0.0

    rates = {row.learning_rate for row in rows}
    return Row(
        parameter=layer,
        layer=layer,
        elements=elements,
        gradient_norm=_norm(row.gradient_norm for row in rows),
        weight_norm=_norm(row.weight_norm for row in rows),
        update_norm=_norm(row.update_norm for row in rows),
        largest_gradient=_largest(row.largest_gradient for row in rows),
        unmoved=share(lambda row: row.unmoved),
        lost=share(lambda row: row.lost),
        clipped=None if all(row.clipped is None for row in rows) else share(lambda row: row.clipped),
        clip_factors=min((row.clip_factors for row in rows if row.clip_factors), key=_strength, default=()),
        learning_rate=rates.pop() if len(rates) == 1 else None,
    )


def _norm(norms: Iterable[float]) -> float:
    """The root of the sum of squares, which neither overflows nor hides a NaN behind an infinity.

    >>> _norm([3.0, 4.0]), _norm([float("inf"), float("nan")])
    (5.0, nan)
    """
    norms = list(norms)
    return math.nan if any(map(math.isnan, norms)) else math.hypot(*norms)


def _largest(values: Iterable[float]) -> float:
    values = list(values)
    return math.nan if any(map(math.isnan, values)) else max(values, default=0.0)


def _strength(factors: tuple[float, ...]) -> float:
    product = math.prod(factors)
    return -math.inf if math.isnan(product) else product


# -- texts -----------------------------------------------------------------------------------------


def _number(value: float) -> str:
    """Three significant digits.

    >>> [_number(value) for value in (0.0, 0.012345, 1234.5, 1e-12, float("nan"))]
    ['0', '0.0123', '1.23e+03', '1e-12', 'nan']
    """
    return f"{value:.3g}"


def _percent(share: float) -> str:
    """A share in percent, which says 0 and 100 only where it is that.

    >>> [_percent(share) for share in (0.0, 1e-9, 0.1234, 0.99999, 1.0)]
    ['0 %', '<0.1 %', '12.3 %', '>99.9 %', '100 %']
    """
    if 0 < share < 0.001:
        return "<0.1 %"
    return ">99.9 %" if 0.999 < share < 1 else f"{100 * share:.3g} %"


def _text(value: float | None, text: Callable[[float], str]) -> str:
    return "-" if value is None else text(value)


# Head, column, and how its values are written.
_PRINTED: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("elements", "elements", lambda count: f"{count:,}"),
    ("gradient", "gradient_norm", _number),
    ("weight", "weight_norm", _number),
    ("update", "update_norm", _number),
    ("update/weight", "update_to_weight", _number),
    ("max |g|", "largest_gradient", _number),
    ("unmoved", "unmoved", _percent),
    ("lost", "lost", _percent),
    ("clipped", "clipped", _percent),
    ("clip factor", "clip_factor", _number),
    ("rate", "learning_rate", _number),
)
# Columns that are printed where a row has a value.
_WHERE_GIVEN = {"clipped", "clip_factor", "learning_rate"}
# Those that a narrow terminal does without first.
_FIRST_LEFT_OUT = ("elements", "max |g|", "clipped", "rate", "unmoved", "weight", "clip factor")
_WIDE = 10_000
