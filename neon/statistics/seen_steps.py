"""The table of a step, from what the engine has seen of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from neon.engine.observation import Line
from neon.statistics.row import Row
from neon.statistics.table import StatisticsTable


def table_of(step: int, lines: Sequence[Line], names: Mapping[str | int, str]) -> StatisticsTable:
    """The table of what was seen, of these parameters in this order: see `names_shown`."""
    places = {key: place for place, key in enumerate(names)}
    found = [(line.name if line.name in names else line.number, line) for line in lines]
    found = sorted(((key, line) for key, line in found if key in names), key=lambda each: places[each[0]])
    return StatisticsTable(step, [_row(key, names[key], line) for key, line in found])


def _row(key: str | int, name: str, line: Line) -> Row:
    """The row of a parameter; one without a name is a layer of its own."""
    sums, numbers = line.sums, line.numbers
    elements = int(sums["elements"])
    shares = {share: sums[share] / elements if elements else 0.0 for share in ("unmoved", "lost", "clipped")}
    return Row(
        parameter=name,
        layer=name.rpartition(".")[0] if isinstance(key, str) else name,
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
