"""The curves of all optimizers in one figure, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neon.commands.compare.curves import Result, percent
from neon.commands.figures import COLOURS, GREY, INK, dress, new_figure, require_matplotlib, save_figure, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Seven colours and four dashes have no common factor: 28 pairs.
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)))
ACCURACY_TICKS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
LABEL_GAP = 0.062


@dataclass(frozen=True)
class Curve:
    """One optimizer's line."""

    label: str
    result: Result
    style: dict[str, Any]


def save_curves(
    directory: Path, results: Sequence[Result], labels: Sequence[str], target: float, title: str
) -> list[Path]:
    """Write ``compare.png`` and ``compare.svg``; no window is opened.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib("neon compare")
    paths = [directory / "compare.png", directory / "compare.svg"]
    save_figure(paths, lambda: draw(results, labels, target, title))
    return paths


def draw(results: Sequence[Result], labels: Sequence[str], target: float, title: str) -> Figure:
    """Validation accuracy on the left; training loss, with the names at its lines, on the right."""
    curves = [
        Curve(label, result, {"color": COLOURS[i % 7], "linestyle": DASHES[i % 4], "lw": 1.6})
        for i, (label, result) in enumerate(zip(labels, results, strict=True))
    ]
    margins = {"left": 0.06, "right": 0.80, "top": 0.84, "bottom": 0.11, "wspace": 0.16}
    figure, (accuracy, loss) = new_figure((11.0, 5.0), title, 2, margins)
    _accuracy_panel(accuracy, curves, target)
    _loss_panel(loss, curves)
    _name_curves(loss, curves)
    return figure


def _accuracy_panel(axes: Axes, curves: Sequence[Curve], target: float) -> None:
    """On a logarithmic scale of the error: 98 and 99 % lie as far apart as 80 and 90."""
    from matplotlib.ticker import NullLocator

    for curve in curves:
        _line(axes, curve, curve.result.accuracy)
    values = [value for curve in curves for value in curve.result.accuracy]
    finest = min((1 - value for value in values if value < 1), default=0.001) / 2
    axes.set_yscale(
        "function",
        functions=(
            lambda share: -np.log10(np.maximum(1 - np.asarray(share), finest)),
            lambda height: 1 - 10.0 ** -np.asarray(height),
        ),
    )
    low, high = min([*values, target], default=0.0), max([*values, target])
    axes.set_ylim(max(low - 0.02, 0.0), min(high + (1 - high) / 4, 1 - finest))
    axes.set_yticks([tick for tick in ACCURACY_TICKS if axes.get_ylim()[0] <= tick <= high])
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.axhline(target, color=GREY, lw=0.9, zorder=1)
    axes.annotate(
        "target", (1, target), (3, 0), xycoords=("axes fraction", "data"),
        textcoords="offset points", va="center", color=GREY, fontsize=8,
    )  # fmt: skip
    _over_epochs(axes, "Validation accuracy", curves)


def _loss_panel(axes: Axes, curves: Sequence[Curve]) -> None:
    for curve in curves:
        _line(axes, curve, curve.result.train_loss)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if high < 10 * low else "")
    _over_epochs(axes, "Training loss", curves)


def _line(axes: Axes, curve: Curve, values: Sequence[float]) -> None:
    epochs = range(1, len(values) + 1)
    axes.plot(epochs, values, **curve.style)
    if curve.result.diverged and values:
        axes.plot(epochs[-1], values[-1], "x", color=curve.style["color"], ms=8, mew=2)


def _over_epochs(axes: Axes, title: str, curves: Sequence[Curve]) -> None:
    from matplotlib.ticker import MaxNLocator

    dress(axes, title)
    axes.set_xlabel("epoch", color=GREY)
    axes.set_xlim(1, max([2, *(curve.result.epochs for curve in curves)]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _name_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """Write each name, with its best accuracy, beside the end of its line."""
    beside = partial(axes.text, 1.115, transform=axes.transAxes, va="center")
    ends = sorted(((_end_height(axes, curve), curve) for curve in curves), key=itemgetter(0))
    heights = spread([end for end, _ in ends], LABEL_GAP)
    for (end, curve), height in zip(ends, heights, strict=True):
        begins = height if curve.result.diverged else end
        style = curve.style | {"lw": 1.2, "clip_on": False, "transform": axes.transAxes}
        axes.plot([1.01, 1.05, 1.10], [begins, height, height], **style)
        best = curve.result.best_accuracy
        ending = curve.result.status if curve.result.diverged or not best else percent(best)
        beside(height, f"{curve.label}  {ending}", color=INK)
    beside(heights[-1] + LABEL_GAP, "optimizer, best accuracy", color=GREY)


def _end_height(axes: Axes, curve: Curve) -> float:
    """Where a line ends, from 0 at the bottom of the panel to 1 at its top."""
    if curve.result.diverged:
        return 0.0
    point = (0.0, curve.result.train_loss[-1])
    return float(axes.transAxes.inverted().transform(axes.transData.transform(point))[1])
