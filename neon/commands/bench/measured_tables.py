"""The final tables: what was measured, and which targets are met."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.table import Table
from rich.text import Text

from neon.commands.bench.kinds import KINDS
from neon.commands.bench.results import TARGETS, Report, Result
from neon.commands.output import new_table

ABSENT = "–"
FACTORS = {"s": 1.0, "ms": 1e3, "µs": 1e6}
RATIOS = (
    "speed-up", "over compiled", "of one group", "of rounding to nearest", "split of nearest", "8 of 32 bits",
    "16 of 32 bits", "of torch's fused", "of a plain step", "bfloat16, of plain", "8-bit states, of plain",
)  # fmt: skip
SHARES = ("of the limit", "split of the limit", "sweeps of the limit", "sweeps of a step", "of a bucket")
LEGEND = """\
Times are medians. speed-up: the time of torch's fastest by neon's. of the limit: bytes that the rule must move, by
the time, by what scaling in place moves. Green: target met, red: missed.
* something else used the processors."""


def seconds(value: float) -> str:
    """A time in the unit that suits it.

    >>> seconds(1.5), seconds(0.0312), seconds(45e-6)
    ('1.5 s', '31.2 ms', '45 µs')
    """
    unit = unit_of(value)
    return f"{value * FACTORS[unit]:.3g} {unit}"


def unit_of(value: float) -> str:
    return next((unit for unit, factor in FACTORS.items() if value >= 1 / factor), "µs")


def written(figure: str, value: float) -> str:
    """A time, a ratio, a share, or bytes a parameter, as they stand in tables."""
    if figure in ("seconds", "host seconds", "empty cache", "filled cache"):
        return seconds(value)
    if figure in SHARES:
        return f"{value:.2f}"
    if "error" in figure:
        return f"{value:.1e}"
    return f"{value:.2f}x" if figure in RATIOS else f"{value:.3f}"


def tables(report: Report) -> list[Table]:
    """A table for each kind and shape, then one of the targets."""
    parts = groupby(report.results, key=lambda result: (result.line.kind, result.line.shape))
    return [*(_measurements(list(part)) for _, part in parts), _targets(report.results)]


def _measurements(results: Sequence[Result]) -> Table:
    """One row for each line: the time of each contender, then the figures."""
    line = results[0].line
    medians = [median for result in results for median in result.medians.values()]
    unit = unit_of(min(medians, default=1.0))
    contenders = dict.fromkeys(who for result in results for who in result.seconds)
    figures = dict.fromkeys(name for result in results for name in result.figures if name != "seconds")
    table = new_table(Text(f"{KINDS[line.kind].title}: {line.shape}" + (f", {unit}" if medians else "")))
    table.add_column("rule", no_wrap=True)
    table.add_column("clip")
    for name in contenders | figures:
        table.add_column(name, justify="right")
    for result in results:
        texts = {name: written(name, value) for name, value in result.figures.items()}
        texts |= {who: f"{median * FACTORS[unit]:.4g}" for who, median in result.medians.items()}
        colours = {target.figure: "green" if target.met(value) else "red" for target, value in result.targets()}
        colours["neon"] = colours.get("seconds", "")
        table.add_row(
            Text(result.line.rule + " *" * result.disturbed),
            "" if result.line.option == "plain" else result.line.option,
            *(Text(texts.get(name, ABSENT), colours.get(name, "")) for name in contenders | figures),
        )
    return table


def _targets(results: Sequence[Result]) -> Table:
    """What was aimed at, the worst and the best that was measured, and how often it was met."""
    table = new_table("Targets")
    table.add_column("what")
    for name in ("target", "worst", "best", "met"):
        table.add_column(name, justify="right", no_wrap=True)
    for target in TARGETS:
        values = sorted(value for result in results for t, value in result.targets() if t is target)
        if not values:
            continue
        worst, best = (values[0], values[-1]) if target.more_is_better else (values[-1], values[0])
        met = sum(map(target.met, values))
        table.add_row(
            Text(target.what),
            f"{'≥' if target.more_is_better else '≤'} {written(target.figure, target.bound)}",
            written(target.figure, worst),
            written(target.figure, best),
            Text(f"{met} of {len(values)}", "green" if met == len(values) else "red"),
        )
    return table
