"""Speed-up over torch's best, the share of the memory limit, and what few bits cost, as bars in an SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neon.commands.bench.results import Report, Result
from neon.commands.bench.tensor_shapes import SHAPES
from neon.commands.figures import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION, dress, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = {"speed-up": "Speed-up over the fastest of torch.optim", "of the limit": "Share of the memory limit"}
CLIPPED = "norm"
ROUNDED = "bfloat16 at random"
# A step in few bits by the same with more, or rounded in another way; a row for each rule that has the figure.
FEW_BITS = {
    "of rounding to nearest": ("bfloat16 at random, of to nearest", VERMILION),
    "split of nearest": ("bfloat16 split, of to nearest", ORANGE),
    "8 of 32 bits": ("8-bit states, of 32 bits", BLUE),
    "16 of 32 bits": ("16-bit states, of 32 bits", SKY),
}
COLOURS = dict(zip(SHAPES, (BLUE, VERMILION, GREEN, SKY, PURPLE, ORANGE), strict=True))


def save_bars(path: Path, report: Report) -> None:
    """Write the figure in the format that the path ends with."""
    save_figure([path], lambda: draw(report))


def draw(report: Report) -> Figure:
    """One panel for each figure: rules from top to bottom, a bar for each shape; and one for few bits, if measured."""
    steps = [result for result in report.results if result.line.kind in ("step", "rounding")]
    few_bits = [result for result in report.results if FEW_BITS.keys() & result.figures.keys()]
    panels = 3 if few_bits else 2
    device = report.device
    title = f"{device['processor']}, {device['torch_threads']} threads, torch {device['versions']['torch']}"
    title += ", disturbed" * report.disturbed
    margins = {"left": 0.32 / panels, "right": 0.98, "top": 0.88, "bottom": 0.10, "wspace": 0.42}
    figure, (left, right, *third) = new_figure((5.5 * panels, 6.0), title, panels, margins)
    for axes, name in ((left, "speed-up"), (right, "of the limit")):
        _panel(axes, [result for result in steps if name in result.figures], name)
    for axes in third:
        _few_bits(axes, few_bits)
    legends = [axes.get_legend_handles_labels() for axes in (left, right)]
    marks = {label: mark for handles, labels in legends for mark, label in zip(handles, labels, strict=True)}
    if marks:
        place = {"loc": "lower left", "bbox_to_anchor": (0.02, 0.0)}
        figure.legend(marks.values(), marks, ncols=len(marks), frameon=False, **place)
    return figure


def _panel(axes: Axes, results: Sequence[Result], name: str) -> None:
    rules = list(dict.fromkeys(result.line.rule for result in results))
    steps = [result for result in results if result.line.kind == "step"]
    shapes = [shape for shape in SHAPES if any(step.line.shape == shape for step in steps)]
    height = 0.8 / max(len(shapes), 1)
    start = 1.0 if name == "speed-up" else 0.0  # a logarithmic scale has no zero for bars to stand on
    for number, shape in enumerate(shapes):
        lengths: dict[str, dict[float, float]] = {"plain": {}, CLIPPED: {}}
        for step in steps:
            if step.line.shape == shape and step.line.option in lengths:
                place = rules.index(step.line.rule) + (number - (len(shapes) - 1) / 2) * height
                lengths[step.line.option][place] = step.figures[name]
        plain, clipped = lengths.values()
        if plain:
            widths = [length - start for length in plain.values()]
            axes.barh([*plain], widths, height * 0.86, start, color=COLOURS[shape], label=shape)
        if clipped:
            label = "clip by norm" if number == len(shapes) - 1 else None
            axes.plot([*clipped.values()], [*clipped], "D", ms=3.5, mfc="white", mec=INK, mew=0.9, ls="", label=label)
    rounded = [(r.figures[name], rules.index(r.line.rule)) for r in results if r.line.kind == "rounding"]
    if rounded:
        axes.plot(*zip(*rounded, strict=True), "x", ms=6, color=INK, ls="", label=ROUNDED)
    _by_rule(axes, rules, PANELS[name])
    values = [step.figures[name] for step in steps]
    if name != "speed-up":
        axes.set_xlim(left=0.0)
    elif values:
        _ratios(axes, min(values), max(values))


def _few_bits(axes: Axes, results: Sequence[Result]) -> None:
    """How long a step takes in few bits, as a share of the time of the same rule in more."""
    rules = list(dict.fromkeys(result.line.rule for result in results))
    height = 0.8 / len(FEW_BITS)
    for number, (name, (label, colour)) in enumerate(FEW_BITS.items()):
        found = [(rules.index(r.line.rule), r.figures[name]) for r in results if name in r.figures]
        places = [i + (number - (len(FEW_BITS) - 1) / 2) * height for i, _ in found]
        axes.barh(places, [value for _, value in found], height * 0.86, color=colour, label=label)
    _by_rule(axes, rules, "Time of a step in few bits")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2, frameon=False)


def _by_rule(axes: Axes, rules: Sequence[str], title: str) -> None:
    dress(axes, title, rules)
    axes.axvline(1.0, color=INK, lw=0.9)


def _ratios(axes: Axes, lowest: float, highest: float) -> None:
    """On a logarithmic scale twice as fast lies as far from the same as half as fast."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log")
    axes.set_xlim(min(0.5, lowest / 1.15), max(2.0, 1.15 * highest))
    axes.xaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
