"""How the rows of a heat map are called: names of layers, or of groups of them where there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from neon.messages import shortened
from neon.statistics.row import THE_MODEL

_LONGEST = 40  # characters
_FEW = 8  # labels that say little of many rows


@dataclass(frozen=True)
class Label:
    """A name beside the rows from `begin` to `end`, the last one not counted; "" where there is no room for it."""

    text: str
    begin: int
    end: int


def labels(names: Sequence[str], room: int) -> list[Label]:
    """A label for each row where there is `room` for so many, else for neighbours whose names begin alike.

    Names are compared part by part, as deep as there is room for. Where even the first parts are too many, each
    second, third, ... label is left empty.

    >>> [label.text for label in labels(["0", "1", "2"], room=9)]
    ['0', '1', '2']
    >>> [(label.text, label.begin, label.end) for label in labels(["in", "body.0.a", "body.0.b", "body.1.a"], room=3)]
    [('in', 0, 1), ('body.0', 1, 3), ('body.1.a', 3, 4)]
    """
    parts = [name.split(".") for name in names]
    deepest = max(map(len, parts), default=1)
    depths = [_grouped(parts, depth) for depth in range(1, deepest + 1)]
    fitting = [groups for groups in depths if len(groups) <= room]
    best = fitting[-1] if fitting else depths[0]
    # Three labels for 96 blocks say too little: then rather the blocks, not all of them labelled.
    if len(best) < min(_FEW, room / 2):
        best = next((groups for groups in depths if len(groups) > room), best)
    every = -(-len(best) // max(room, 1))
    return [
        Label(shortened(label.text or THE_MODEL, _LONGEST) if number % every == 0 else "", label.begin, label.end)
        for number, label in enumerate(best)
    ]


def _grouped(parts: Sequence[list[str]], depth: int) -> list[Label]:
    groups, begin = [], 0
    for first, members in groupby(parts, key=lambda part: part[:depth]):
        count = len(list(members))
        # A group of one has its whole name: what stands for it alone.
        groups.append(Label(".".join(parts[begin] if count == 1 else first), begin, begin + count))
        begin += count
    return groups
