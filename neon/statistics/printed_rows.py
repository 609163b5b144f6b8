"""Rows of statistics as Rich prints them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from neon.statistics.row import THE_MODEL, Row

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table


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
WIDE = 10_000


def printed(title: str, rows: Sequence[Row], console: Console, options: ConsoleOptions) -> Table:
    """The rows; columns that the terminal has no room for are left out, and named below."""
    columns = {
        head: [_text(getattr(row, name), text) for row in rows]
        for head, name, text in _PRINTED
        if name not in _WHERE_GIVEN or any(getattr(row, name) is not None for row in rows)
    }
    without: list[str] = []
    table = _of(title, rows, columns, without)
    for head in (head for head in _FIRST_LEFT_OUT if head in columns and options.max_width < WIDE):
        if table.__rich_measure__(console, options.update(max_width=WIDE)).maximum <= options.max_width:
            break
        without.append(head)
        table = _of(title, rows, columns, without)
    return table


def _of(title: str, rows: Sequence[Row], columns: Mapping[str, Sequence[str]], without: Sequence[str]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    caption = f"no room for: {', '.join(without)}" if without else None
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    # As `Text`, for a name may hold what Rich would read as markup, and looking for it takes time.
    names = [Text(row.parameter or THE_MODEL, overflow="fold") for row in rows]
    table.add_column("layer" if all(row.parameter == row.layer for row in rows) else "parameter")
    kept = {head: texts for head, texts in columns.items() if head not in without}
    for head in kept:
        table.add_column(head, justify="right", no_wrap=True)
    for name, *numbers in zip(names, *kept.values(), strict=True):
        table.add_row(name, *map(Text, numbers))
    return table
