"""How the rows of a heat map are called: names of layers, or of groups of them where there are too many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile

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
    texts = _short([label.text or THE_MODEL for label in best])
    return [
        Label(text if number % every == 0 else "", label.begin, label.end)
        for number, (label, text) in enumerate(zip(best, texts, strict=True))
    ]


def _short(texts: Sequence[str]) -> list[str]:
    """Texts that are not too long; of several that are, what they differ in is kept, with what there is room for.

    >>> _short(["head", *(f"model.of.a.transformer.layers.{n}.with.a.projection_of_keys.inner" for n in (0, 1))])
    ['head', '...layers.0.with.a.projection_of_keys...', '...layers.1.with.a.projection_of_keys...']
    """
    parts = [text.split(".") for text in texts if len(text) > _LONGEST]
    if len(parts) < 2:
        return [shortened(text, _LONGEST) for text in texts]
    least = min(map(len, parts)) - 1  # one part is left of each
    first = min(_alike(parts), least)
    behind = min(_alike([names[::-1] for names in parts]), least - first)
    return [
        shortened(_around(text.split("."), first, behind) if len(text) > _LONGEST else text, _LONGEST) for text in texts
    ]


def _alike(names: Sequence[Sequence[str]]) -> int:
    """How many parts all names begin with."""
    return sum(1 for _ in takewhile(lambda parts: len({*parts}) == 1, zip(*names, strict=False)))


def _around(parts: Sequence[str], first: int, behind: int) -> str:
    """The parts but for some at each end, of which there is one before, and as many behind, as there is room for."""
    last = len(parts) - behind

    def text(begin: int, end: int) -> str:
        return "..." * (begin > 0) + ".".join(parts[begin:end]) + "..." * (end < len(parts))

    spans = [(begin, end) for begin in range(first + 1) for end in range(last, len(parts) + 1)]
    fitting = [span for span in spans if len(text(*span)) <= _LONGEST]
    return text(*max(fitting, key=lambda span: (span[0] < first, span[1], -span[0]), default=(first, last)))


def _grouped(parts: Sequence[list[str]], depth: int) -> list[Label]:
    groups, begin = [], 0
    for first, members in groupby(parts, key=lambda part: part[:depth]):
        count = len(list(members))
        # A group of one has its whole name: what stands for it alone.
        groups.append(Label(".".join(parts[begin] if count == 1 else first), begin, begin + count))
        begin += count
    return groups
