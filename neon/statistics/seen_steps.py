"""The table of a step, from what the engine has seen of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from neon.engine.observation import Line
from neon.statistics.row import Row
from neon.statistics.table import StatisticsTable


def table_of(step: int, lines: Sequence[Line], names: Sequence[str]) -> StatisticsTable:
    """The table of what was seen, of these parameters in this order."""
    places = {name: place for place, name in enumerate(names)}
    found = sorted((line for line in lines if line.name in places), key=lambda line: places[line.name])
    return StatisticsTable(step, [_row(line) for line in found])


def _row(line: Line) -> Row:
    sums, numbers = line.sums, line.numbers
    elements = int(sums["elements"])
    shares = {name: sums[name] / elements if elements else 0.0 for name in ("unmoved", "lost", "clipped")}
    return Row(
        parameter=line.name,
        layer=line.name.rpartition(".")[0],
        elements=elements,
        gradient_norm=math.sqrt(sums["gradient"]),
        weight_norm=math.sqrt(sums["weight"]),
        update_norm=math.sqrt(sums["update"]),
        largest_gradient=sums["largest"],
        unmoved=shares["unmoved"],
        lost=shares["lost"],
        clipped=shares["clipped"] if line.clips else None,
        clip_factors=tuple(value for name, value in numbers.items() if name != "rate"),
        learning_rate=numbers.get("rate"),
    )
