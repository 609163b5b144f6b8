"""The final tables: what was measured, and which targets are met."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

from rich.table import Table
from rich.text import Text

from neon.commands.bench.kinds import KINDS
from neon.commands.bench.results import TARGETS, Report, Result
from neon.commands.output import new_table

ABSENT = "–"
FACTORS = {"s": 1.0, "ms": 1e3, "µs": 1e6}
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


_TIMES = ("seconds", "host seconds", "empty cache", "filled cache")
_RATIOS = (
    "speed-up", "over compiled", "of one group", "of rounding to nearest", "split of nearest", "8 of 32 bits",
    "16 of 32 bits", "of torch's fused",
)  # fmt: skip
FIGURES: dict[str, Callable[[float], str]] = {
    **dict.fromkeys(_TIMES, seconds),
    **dict.fromkeys(_RATIOS, "{:.2f}x".format),
    **dict.fromkeys(("of the limit", "split of the limit"), "{:.2f}".format),
}


def written(figure: str, value: float) -> str:
    return FIGURES.get(figure, "{:.3f}".format)(value)


def tables(report: Report) -> list[Table]:
    """A table for each kind and shape, then one of the targets."""
    parts = groupby(report.results, key=lambda result: (result.line.kind, result.line.shape))
    return [*(_measurements(list(part)) for _, part in parts), _targets(report.results)]


def _measurements(results: Sequence[Result]) -> Table:
    """One row for each line: the time of each contender, then the figures."""
    line = results[0].line
    medians = [spread["median"] for result in results for spread in result.seconds.values()]
    unit = unit_of(min(medians, default=1.0))
    contenders = dict.fromkeys(who for result in results for who in result.seconds)
    figures = dict.fromkeys(name for result in results for name in result.figures)
    figures = [name for name in figures if name not in ("seconds", *contenders)]
    table = new_table(Text(f"{KINDS[line.kind].title}: {line.shape}" + (f", {unit}" if medians else "")))
    table.add_column("rule", no_wrap=True)
    table.add_column("clip")
    for name in (*contenders, *figures):
        table.add_column(name, justify="right")
    for result in results:
        judged = {target.figure: target.met(value) for target, value in result.targets()}
        judged |= {"neon": judged["seconds"]} if "seconds" in judged else {}

        def cell(name: str, value: float | None, write: Callable[[float], str], judged=judged) -> Text:
            colour = {True: "green", False: "red", None: ""}[judged.get(name)]
            return Text(ABSENT if value is None else write(value), colour)

        times = {who: result.seconds.get(who, {}).get("median") for who in contenders}
        table.add_row(
            Text(result.line.rule + " *" * result.disturbed),
            "" if result.line.option == "plain" else result.line.option,
            *(cell(who, times[who], lambda value: f"{value * FACTORS[unit]:.4g}") for who in contenders),
            *(cell(name, result.figures.get(name), lambda value, n=name: written(n, value)) for name in figures),
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
