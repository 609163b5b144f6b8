"""Heat maps of a run, layer by step, as PNG and SVG: update/weight and the norms of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neon.commands.figures import GREY, INK, VERMILION, new_figure, save_figure, spread
from neon.commands.report.binned import Binned, binned
from neon.commands.report.row_labels import Label, labels
from neon.commands.report.run_file import Run
from neon.messages import shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# viridis is perceptually uniform, and rises in lightness for every kind of colour vision; its darkest tenth is left
# out, for it could be taken for the black of NaN.
_MAP, _DARKEST = "viridis", 0.1
# Colours that are not on the scale, for what has no place on it. Of two the later counts.
_SPECIAL = (
    ("zero", "#ffffff", "0"),
    ("absent", "#d4d4d4", "not updated"),
    ("infinite", VERMILION, "infinite"),
    ("nan", "#000000", "NaN"),
)
# So many percent of the values at each end may be beyond the scale; that end is pointed then.
_BEYOND = 0.5
_WIDEST = (1e-100, 1e100)
# Inches: of the figure, of what is around the maps, of rows and labels.
_WIDTH, _RIGHT, _BETWEEN, _ABOVE, _BELOW = 12.0, 0.3, 0.4, 1.0, 1.2
_HIGHEST_ROW, _LOWEST_ROW, _PAGE, _LEAST = 0.30, 0.02, 7.0, 1.2
_LABEL, _CHARACTER = 0.13, 0.072
_TITLE = 70  # characters, beside what the colours are called


def save_heat_maps(directory: Path, run: Run, title: str) -> list[Path]:
    """Write ``report.png`` and ``report.svg``; no window is opened."""
    paths = [directory / "report.png", directory / "report.svg"]
    save_figure(paths, lambda: _draw(run, title))
    return paths


def _draw(run: Run, title: str) -> Figure:
    rows = len(run.rows)
    height = max(min(rows * _HIGHEST_ROW, _PAGE), rows * _LOWEST_ROW, _LEAST)
    size = (_WIDTH, height + _ABOVE + _BELOW)
    room = int(height / (1.15 * _LABEL))
    named = labels(run.rows, room)
    left = 0.3 + _CHARACTER * max(len(label.text) for label in named)
    panel = (_WIDTH - left - _BETWEEN - _RIGHT) / 2
    margins = {
        "left": left / _WIDTH, "right": 1 - _RIGHT / _WIDTH, "wspace": _BETWEEN / panel,
        "bottom": _BELOW / size[1], "top": 1 - _ABOVE / size[1],
    }  # fmt: skip
    figure, panels = new_figure(size, "", 2, margins)
    maps = (
        ("update / weight", "norm of the update over norm of the weight (a ratio, no unit)", run.update_to_weight),
        ("gradient", "norm of the gradient, before clipping (unit of the loss per unit of the weight)", run.gradient),
    )
    drawn = [binned(grid, run.there, run.steps) for *_, grid in maps]
    for axes, (name, meaning, _), cells in zip(panels, maps, drawn, strict=True):
        _dress(axes, name, run, cells, named, lined=len(named) <= room)
        _map(axes, cells, meaning)
    _name_rows(panels[0], named, rows * _LABEL / height)
    _title(figure, title, run, drawn)
    return figure


def _map(axes: Axes, cells: Binned, meaning: str) -> None:
    """The cells in their colours, with the scale below."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    known = np.sort(cells.values[np.isfinite(cells.values)])
    colours = _colours()
    if len(known):
        beyond = int(len(known) * _BEYOND / 100)
        low, high = np.clip([known[beyond], known[-1 - beyond]], *_WIDEST)
        if high < 2 * low:  # what hardly differs has hardly another colour
            low, high = low / 3, high * 3
        norm = LogNorm(low, high, clip=True)
        pixels = colours(norm(np.nan_to_num(cells.values, nan=low)))
        ends = (known[0] < low, known[-1] > high)
        extend = {(False, False): "neither", (True, False): "min", (False, True): "max", (True, True): "both"}[ends]
        figure: Any = axes.figure
        below = axes.get_position()
        inch = 1 / figure.get_figheight()
        scale = figure.add_axes((below.x0, below.y0 - 0.68 * inch, below.width, 0.12 * inch))
        bar = figure.colorbar(ScalarMappable(norm, colours), cax=scale, orientation="horizontal", extend=extend)
        _scale_ticks(scale, low, high)
        bar.outline.set_visible(False)
    else:
        pixels = np.ones((*cells.values.shape, 4))
        _write_below(axes, -0.62, "no scale: there is no number above 0")
    _write_below(axes, -0.98, meaning)
    for name, colour, _ in _SPECIAL:
        pixels[getattr(cells, name)] = _rgba(colour)
    axes.imshow(pixels, aspect="auto", interpolation="nearest", zorder=0)


def _write_below(axes: Axes, inches: float, text: str) -> None:
    axes.text(0.5, inches, text, transform=_inches_below(axes), ha="center", va="top", color=GREY, fontsize=8.5)


def _colours() -> Colormap:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps[_MAP](np.linspace(_DARKEST, 1, 256)))


def _rgba(colour: str) -> NDArray[np.float64]:
    from matplotlib.colors import to_rgba

    return np.array(to_rgba(colour))


def _scale_ticks(scale: Axes, low: float, high: float) -> None:
    """Powers of ten where there are several, else numbers between them too."""
    from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

    few, plain = high < 100 * low, low > 1e-3 and high < 1e4
    scale.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,), numticks=9))
    scale.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if plain else _power_text(value))
    if few:
        scale.xaxis.set_minor_locator(NullLocator())
    scale.xaxis.set_minor_formatter(NullFormatter())
    scale.tick_params(colors=GREY, which="both", length=2.5, labelsize=8.5)


def _power_text(value: float) -> str:
    r"""A number of one digit, as mathematics.

    >>> print(_power_text(2e-6), _power_text(1e-20))
    $2\cdot10^{-6}$ $10^{-20}$
    """
    digit, power = f"{value:.0e}".split("e")
    times = "" if digit == "1" else rf"{digit}\cdot"
    return f"${times}10^{{{int(power)}}}$"


def _inches_below(axes: Axes) -> Any:
    """Across as the panel, down in inches from its lower edge."""
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    figure: Any = axes.figure
    edge = ScaledTranslation(0, axes.get_position().y0 * figure.get_figheight(), figure.dpi_scale_trans)
    return blended_transform_factory(axes.transAxes, figure.dpi_scale_trans + edge)


def _dress(axes: Axes, name: str, run: Run, cells: Binned, named: Sequence[Label], *, lined: bool) -> None:
    axes.set_title(name, loc="left", fontsize=11, color=INK)
    axes.spines[:].set_color("#aaaaaa")
    axes.tick_params(colors=GREY, length=2.5)
    ticks = _step_ticks(int(run.steps[0]), int(run.steps[-1]))
    axes.set_xticks(np.interp(ticks, cells.steps, np.arange(len(cells.steps))), [f"{tick:,}" for tick in ticks])
    axes.set_yticks([])
    axes.set_xlabel("step of the optimizer", color=GREY, labelpad=2)
    for label in named[1:] if lined else ():
        axes.axhline(label.begin - 0.5, color="white", lw=0.5, zorder=1)


def _step_ticks(first: int, last: int) -> list[int]:
    """Round numbers, and the first step where there is room for it.

    >>> _step_ticks(1, 60), _step_ticks(7, 7), _step_ticks(1, 3)
    ([1, 10, 20, 30, 40, 50, 60], [7], [1, 2, 3])
    """
    from matplotlib.ticker import MaxNLocator

    found = MaxNLocator(7, integer=True, steps=[1, 2, 5, 10]).tick_values(first, last)
    ticks = [int(tick) for tick in found if first <= tick <= last]
    return ticks if ticks and ticks[0] - first < (found[1] - found[0]) / 2 else [first, *ticks]


def _name_rows(axes: Axes, named: Sequence[Label], room: float) -> None:
    """Names at the left, `room` rows apart, with a line beside the rows that share one."""
    at = axes.get_yaxis_transform()
    line = {"color": "#999999", "lw": 0.9, "transform": at, "clip_on": False, "solid_capstyle": "butt"}
    named_rows = [label for label in named if label.text]
    middles = [(label.begin + label.end - 1) / 2 for label in named_rows]
    places = spread(middles, room, top=max(label.end for label in named) - 0.5)
    for label, middle, place in zip(named_rows, middles, places, strict=True):
        axes.text(
            -0.03, place, label.text, transform=at, ha="right", va="center", color=INK, fontsize=8.5, parse_math=False
        )  # fmt: skip
        if abs(place - middle) > room / 8:
            axes.plot([-0.026, -0.012], [place, middle], **line)
    for label in named:
        if label.end - label.begin > 1:
            axes.plot([-0.01, -0.01], [label.begin - 0.3, label.end - 0.7], **line)


def _title(figure: Figure, title: str, run: Run, drawn: Sequence[Binned]) -> None:
    """What was looked at, and the colours beside the scale that there are."""
    from matplotlib.patches import Patch

    height = figure.get_figheight()
    name = shortened(title, _TITLE)
    figure.text(0.02, 1 - 0.25 / height, name, fontsize=12, fontweight="bold", va="center", parse_math=False)
    first, last, width = run.steps[0], run.steps[-1], drawn[0].width
    looked = f"step {first:,}" if len(run.steps) == 1 else f"{len(run.steps):,} steps, {first:,} to {last:,}"
    medians = f"; each column is the median of {width}" if width > 1 else ""
    figure.text(0.02, 1 - 0.5 / height, looked + medians, fontsize=9, color=GREY, va="center")
    special = [
        Patch(facecolor=colour, edgecolor="#888888", lw=0.6, label=text)
        for name, colour, text in _SPECIAL
        if any(getattr(cells, name).any() for cells in drawn)
    ]
    if special:
        figure.legend(
            handles=special, loc="upper right", bbox_to_anchor=(1 - _RIGHT / _WIDTH, 1 - 0.1 / height), frameon=False,
            ncols=len(special), labelcolor=INK, fontsize=9, handlelength=1.2, columnspacing=1.6, borderaxespad=0,
        )  # fmt: skip
