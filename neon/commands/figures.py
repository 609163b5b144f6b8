"""Figures as all commands draw them: the colours, an empty figure, the dress of a panel, the files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from neon.commands.errors import MissingExtraError
from neon.whole_files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which stay apart in every common form of colour blindness; without their yellow, too faint
# on white.
BLUE, VERMILION, GREEN, BLACK = "#0072B2", "#D55E00", "#009E73", "#000000"
PURPLE, ORANGE, SKY = "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, VERMILION, GREEN, BLACK, PURPLE, ORANGE, SKY)
INK = "#222222"
GREY = "#6b6b6b"


def require_matplotlib(command: str) -> None:
    """Find out before a command does its work, not after it, that there can be no figure.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(f"the figure of {command}", "matplotlib") from error


def new_figure(
    size: tuple[float, float], title: str, panels: int, margins: Mapping[str, float], *, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """An empty figure with panels side by side; on white, so that it reads the same on a dark page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, facecolor="white")
    FigureCanvasAgg(figure)
    [row] = figure.subplots(1, panels, sharey=sharey, squeeze=False)
    figure.subplots_adjust(**margins)
    if title:
        figure.text(0.025, 0.95, title, fontsize=12, fontweight="bold", va="center")
    return figure, list(row)


def dress(axes: Axes, title: str, rows: Sequence[str] | None = None) -> None:
    """Title, frame, ticks and grid of a panel; with `rows`, from top to bottom, the panel has a line for each."""
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#aaaaaa")
    axes.tick_params(colors=GREY, which="both", length=2.5)
    axes.grid(axis="y" if rows is None else "x", color="#e8e8e8", lw=0.7)
    axes.set_axisbelow(True)
    if rows is not None:
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0, labelcolor=INK)


def spread(wanted: Sequence[float], gap: float, top: float = 1.0) -> list[float]:
    """Heights near the wanted ones, which rise, but at least `gap` apart and not above `top`.

    >>> spread([0.2, 0.2, 0.9], 0.1)
    [0.2, 0.30000000000000004, 0.9]
    >>> spread([0.99, 1.0], 0.5)
    [0.5, 1.0]
    """
    heights: list[float] = []
    for height in wanted:
        heights.append(max(height, heights[-1] + gap) if heights else height)
    limit = top
    for index in reversed(range(len(heights))):
        heights[index] = min(heights[index], limit)
        limit = heights[index] - gap
    return heights


def save_figure(paths: Sequence[Path], draw: Callable[[], Figure]) -> None:
    """Draw a figure and write it in the formats that the paths end with; no window is opened.

    The same figure gives the same SVG: it has no date, and its names are hashed in one way.
    """
    import matplotlib

    with matplotlib.rc_context({"font.size": 9.0, "svg.hashsalt": "neon", "svg.fonttype": "path"}):
        figure = draw()
        for path in paths:
            kind = path.suffix[1:]
            metadata = {"Date": None} if kind == "svg" else {}
            write = partial(
                figure.savefig, format=kind, dpi=160, metadata=metadata, bbox_inches="tight", pad_inches=0.2
            )
            write_atomically(path, write)
