"""The table of an optimizer: what each layer goes by, with repeated layers in one row."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor
from torch.nn.parameter import is_lazy

from neon.assignment.description import Description
from neon.assignment.sites import Site, dotted
from neon.engine.program.options import DECAY, MOST, SCALE
from neon.engine.tensors.weight_matrices import Matrices

_HEADS = ("layer", "class", "optimizer", "parameters", "state bytes", "key", "lr", "decay", "set", "matrices")
_RIGHT = {"parameters", "state bytes", "lr", "decay"}
# A range says more than its rows from so many on.
_LEAST = 3


class Given(NamedTuple):
    """What a parameter goes by, as the table has it: in `own` what is set for it, frozen or scheduled.

    `matrices` are those of a parameter under a rule of matrices, with their scales, or why it is under another.
    """

    optimizer: str
    key: str = ""
    lr: str = ""
    decay: str = ""
    own: str = ""
    matrices: str = ""


NOTHING = Given("None (no parameters)")


def frozen(key: str) -> Given:
    """What the layers of a key without an optimizer go by."""
    return Given("None (frozen)", key, "-", "-")


def given(optimizer: Description, key: str, values: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> Given:
    """What an optimizer's parameters with these values go by; `own` are those that were set for them alone."""
    own = dict(own or {})
    notes = ["frozen"] if own.pop("frozen", False) else []
    if values.get(SCALE, 1.0) != 1:
        notes.append(f"lr_scale={_text(values[SCALE])}")
    if values.get(DECAY) is not None:
        notes.append(f"{DECAY}={_text(values[DECAY])}")
    notes += [f"{name}={_text(value)}" for name, value in own.items() if name != SCALE]
    if optimizer._has_schedule:
        notes.append(f"schedule={type(optimizer.schedule).__name__}")
    lr = _text(_number(values["lr"]) * _number(values.get(SCALE, 1.0))) if "lr" in values else "-"
    decay = _text(values["weight_decay"]) if "weight_decay" in values else "-"
    return Given(optimizer.name or type(optimizer).__name__, key, lr, decay, ", ".join(notes))


def matrices_text(optimizer: Description, values: Mapping[str, Any], matrices: Matrices, shape: Sequence[int]) -> str:
    """What a parameter of a shape is made of, with the scales of its matrices: `3 of 768x768, scale 0.2`.

    Sides that a rule leaves alone for their length are named: `32000x768, 32000 rows left alone`.
    """
    texts = []
    for count, rows, columns in matrices.shapes(shape):
        scale = optimizer.scale_of((rows, columns), values)
        times = "" if scale is None else f", scale {scale:.4g}"
        most = values.get(MOST, math.inf)
        long = [f"{length} {side}" for length, side in ((rows, "rows"), (columns, "columns")) if length > most]
        times += f", {' and '.join(long)} left alone" if long else ""
        texts.append((f"{count} of " if count > 1 else "") + f"{rows}x{columns}{times}")
    return "; ".join(texts)


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_text, value))})"
    value = _number(value)
    return f"{value:.6g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else repr(value)


def table(rows: Iterable[tuple[Site, Given, int]], *, full: bool = False) -> str:
    """Layers with what they go by, and their bytes of state, as text.

    A layer is one row, or one for each of its parameters where these go by different things. Unless `full`, layers
    that are alike and numbered one after another are one row, `blocks.0 … blocks.31`, with the sums of all.
    """
    lines = list(_by_layer(rows))
    if not full:
        root = _Node()
        for line in lines:
            root.add(line)
        lines = root.lines_below("")
    cells = [line.cells() for line in lines]
    some = len(_HEADS) if any(line[-1] for line in cells) else len(_HEADS) - 1  # matrices, where there are any
    texts = [heads[:some] for heads in (_HEADS, *cells)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    texts.insert(1, tuple("-" * width for width in widths))
    return "\n".join(_aligned(text, widths) for text in texts)


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> str:
    columns = zip(_HEADS[: len(cells)], cells, widths, strict=True)
    return "  ".join(c.rjust(width) if head in _RIGHT else c.ljust(width) for head, c, width in columns).rstrip()


class _Line(NamedTuple):
    """A row: a layer, or layers that are alike, with the sums over them."""

    label: str
    kind: str
    given: Given
    size: int
    state_bytes: int
    named: bool  # else its size tells it from no other

    def like(self) -> tuple[Any, ...]:
        """What it has in common with lines that it may share a row with."""
        return (self.label, self.kind, self.given, self.named, *((self.size, self.state_bytes) if self.named else ()))

    def cells(self) -> tuple[str, ...]:
        optimizer, *rest = self.given
        return (self.label, self.kind, optimizer, f"{self.size:,}", f"{self.state_bytes:,}", *rest)


def _by_layer(rows: Iterable[tuple[Site, Given, int]]) -> Iterator[_Line]:
    layers: dict[tuple[str, str, bool], dict[tuple[str, Given], list[int]]] = {}
    for site, goes_by, state_bytes in rows:
        params = layers.setdefault((site.label, site.kind, bool(site.names)), {})
        sums = params.setdefault((site.own, goes_by), [0, 0])
        sums[0] += 0 if site.param is None or is_lazy(site.param) else site.param.numel()
        sums[1] += state_bytes
    for (label, kind, named), params in layers.items():
        different = {goes_by for _, goes_by in params}
        if len(different) == 1:
            size, state_bytes = map(sum, zip(*params.values(), strict=True))
            yield _Line(label, kind, different.pop(), size, state_bytes, named)
            continue
        for (own, goes_by), (size, state_bytes) in params.items():
            yield _Line(".".join(filter(None, (label, own))), kind, goes_by, size, state_bytes, named)


# -- repeated layers -------------------------------------------------------------------------------


@dataclass
class _Node:
    """A layer in the tree of names, with the lines that bear its name and what is below it."""

    lines: list[_Line] = field(default_factory=list)
    below: dict[str, _Node] = field(default_factory=dict)

    def add(self, line: _Line) -> None:
        node = self
        for part in line.label.split("."):
            node = node.below.setdefault(part, _Node())
        node.lines.append(line._replace(label=""))

    def lines_below(self, name: str) -> list[_Line]:
        """Its lines, labelled from this node on, with those of repeated layers added up; `name` is its own."""
        runs: list[_Run] = []
        for part, node in self.below.items():
            lines = node.lines_below(part)
            if not (runs and runs[-1].goes_on_with(part, lines)):
                runs.append(_Run(part, lines))
        return [*self.lines, *(line for run in runs for line in run.as_lines(name))]


class _Run:
    """Layers that are numbered one after another and alike in all their lines."""

    def __init__(self, part: str, lines: list[_Line]) -> None:
        self._members = [(part, lines)]
        self._like = [line.like() for line in lines]
        self._end = _numbered(part)

    def goes_on_with(self, part: str, lines: list[_Line]) -> bool:
        """Whether a layer is the next of the run; if so it is taken in."""
        after = _numbered(part)
        if self._end is None or after is None or after != (self._end[0], self._end[1] + 1, self._end[2]):
            return False
        if [line.like() for line in lines] != self._like:
            return False
        self._members.append((part, lines))
        self._end = after
        return True

    def as_lines(self, parent: str) -> Iterator[_Line]:
        if len(self._members) < _LEAST:
            for part, lines in self._members:
                yield from (line._replace(label=dotted(part, line.label)) for line in lines)
            return
        first, last = self._members[0][0], self._members[-1][0]
        # `blocks.0 … blocks.31`: a number alone says little
        last = dotted(parent, last) if last.isdigit() and not parent.isdigit() else last
        for alike in zip(*(lines for _, lines in self._members), strict=True):
            size, state_bytes = sum(line.size for line in alike), sum(line.state_bytes for line in alike)
            label = dotted(f"{first} {_to()} {last}", alike[0].label)
            yield alike[0]._replace(label=label, size=size, state_bytes=state_bytes)


@lru_cache(maxsize=1024)
def _numbered(part: str) -> tuple[str, int, str] | None:
    """A name as what stands before its last number, the number, and what stands behind."""
    found = re.fullmatch(r"(.*?)(0|[1-9][0-9]*)(\D*)", part)
    return (found[1], int(found[2]), found[3]) if found else None


def _to() -> str:
    """The sign of a range, as the terminal can show it."""
    try:
        "…".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return "..."
    return "…"
