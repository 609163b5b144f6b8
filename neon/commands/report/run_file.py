"""The file of a run, as `StatisticsTable.to_jsonl` and `to_csv` write it: norms of each layer in each step."""

from __future__ import annotations

import csv
import json
import math
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from neon.commands.errors import RunFileError
from neon.commands.references import one_line
from neon.messages import listed, shown

NORMS = ("gradient_norm", "weight_norm", "update_norm")
_NEEDED = {"step", "parameter", "layer", *NORMS}
Grid = NDArray[np.float64]


@dataclass(frozen=True)
class Run:
    """What was seen of a run. Grids have a row for each layer, or parameter, and a column for each step.

    Attributes:
        steps: those that were looked at, rising.
        rows: names of layers, or of parameters, in the order that steps have them in: what a later step is the first to
            have, as a layer that was frozen, comes behind what is before it there.
        there: whether a step has updated a row; elsewhere grids are 0.
        gradient: the norm of each gradient.
        update_to_weight: the update's norm over the weight's.
        cut_off: whether the last line was incomplete, and left out.
        again: how many lines a later one on the same parameter and step stands for.
    """

    steps: NDArray[np.int64]
    rows: tuple[str, ...]
    there: NDArray[np.bool_]
    gradient: Grid
    update_to_weight: Grid
    cut_off: bool
    again: int


def read_run(path: Path, *, by: str = "layer") -> Run:
    """Read the file of a run, with a row for each layer or, `by="parameter"`, for each parameter.

    Of two lines on one parameter and step, as a resumed run writes them, the later counts.

    Raises:
        RunFileError: it cannot be read, has no statistics, or something else too; the message names the line.
    """
    lines, cut_off = _Lines(by), False
    records = _csv_records if path.suffix == ".csv" else _json_records
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, record in records(file):
                lines.add(number, record)
    except _CutOffError:
        cut_off = True
    except _BadLineError as error:
        raise RunFileError(f"{path}, line {error.number}: {error}.") from error
    except FileNotFoundError as error:
        raise RunFileError(f"there is no file {path}.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RunFileError(f"cannot read {path}: {one_line(error)}.") from error
    if not lines.steps:
        write = f"optimizer.statistics().append_to({path.name!r})"
        raise RunFileError(f"{path} has no line of statistics. A training writes them: {write}.")
    return lines.together(cut_off=cut_off)


# -- lines -----------------------------------------------------------------------------------------


class _BadLineError(Exception):
    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.number = number


class _CutOffError(Exception):
    """The last line has no end: its writer was stopped, or writes it right now."""


def _json_records(file: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(file, 1):
        if line.isspace():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            if not line.endswith("\n") and number > 1:
                raise _CutOffError from None
            raise _BadLineError(number, f"this is not JSON: {shown(line.strip(), 60)}") from None
        if not isinstance(record, dict):
            raise _BadLineError(number, f"expected an object of JSON, {{...}}; received {shown(record, 60)}")
        yield number, record


def _csv_records(file: IO[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    last = ""

    def remembered() -> Iterator[str]:
        nonlocal last
        for line in file:
            last = line
            yield line

    reader = csv.reader(remembered())
    try:
        heads = next(reader, [])
        for cells in reader:
            if cells and len(cells) != len(heads):
                if not last.endswith("\n"):
                    raise _CutOffError
                raise _BadLineError(reader.line_num, f"{len(cells)} cells where the first line has {len(heads)}")
            if cells:
                yield reader.line_num, dict(zip(heads, cells, strict=True))
    except csv.Error as error:
        raise _BadLineError(reader.line_num, f"this is not CSV: {error}") from None


class _Lines:
    """The lines of a file, as columns of numbers; names are numbered in the order in which they come."""

    def __init__(self, by: str) -> None:
        self.steps, self._parameters, self._rows = array("q"), array("q"), array("q")
        self._norms = {name: array("d") for name in NORMS}
        self._number_of_row: dict[str, int] = {}
        self._names = (("parameter", {}, self._parameters), (by, self._number_of_row, self._rows))

    def add(self, number: int, record: Mapping[str, Any]) -> None:
        missing = _NEEDED - record.keys()
        if missing:
            raise _BadLineError(number, f"there is no {listed(sorted(missing))} among {listed(map(str, record))}")
        self.steps.append(_step(number, record["step"]))
        for name, values in self._norms.items():
            values.append(_norm(number, name, record[name]))
        for name, numbers, values in self._names:
            values.append(numbers.setdefault(str(record[name]), len(numbers)))

    def together(self, *, cut_off: bool) -> Run:
        """Grids of rows by steps."""
        steps, column = np.unique(np.array(self.steps), return_inverse=True)
        parameters, numbers = np.array(self._parameters), np.array(self._rows)
        order = _merged(np.array(self.steps), numbers)
        rows = np.argsort(order)[numbers]
        # The first from behind is the last: what a resumed run has written again.
        _, behind = np.unique((column * (parameters.max() + 1) + parameters)[::-1], return_index=True)
        kept = len(column) - 1 - behind
        place = (rows[kept], column[kept])
        shape = (len(order), len(steps))
        there = np.zeros(shape, bool)
        there[place] = True
        gradient, weight, update = (_norm_of(np.array(self._norms[name])[kept], place, shape) for name in NORMS)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where((weight == 0) & (update == 0), 0.0, update / weight)
        names = [*self._number_of_row]
        again = len(column) - len(kept)
        return Run(steps, tuple(names[number] for number in order), there, gradient, ratio, cut_off, again)


def _merged(steps: NDArray[np.int64], rows: NDArray[np.int64]) -> list[int]:
    """Rows in the order that steps have them in; one that is new in a later step comes behind what is before it."""
    tables = np.cumsum(np.diff(steps, prepend=steps[:1]) != 0)
    _, first = np.unique(rows, return_index=True)
    order: list[int] = []
    for table in np.unique(tables[first]):
        found, known = dict.fromkeys(rows[tables == table].tolist()), {*order}
        place = 0 if known & found.keys() else len(order)
        for row in found:
            if row in known:
                place = max(place, order.index(row) + 1)
            else:
                order.insert(place, row)
                place += 1
    return order


def _norm_of(norms: Grid, place: tuple[NDArray[Any], NDArray[Any]], shape: tuple[int, int]) -> Grid:
    """The roots of the sums of squares of what has one place; NaN where one is NaN."""
    grid = np.zeros(shape)
    np.hypot.at(grid, place, norms)
    unknown = np.isnan(norms)
    grid[place[0][unknown], place[1][unknown]] = np.nan  # which hypot hides behind an infinity
    return grid


def _step(number: int, value: Any) -> int:
    with suppress(TypeError, ValueError, OverflowError):
        if 0 <= (step := int(value)) < 2**63 and step == float(value):
            return step
    raise _BadLineError(number, f"step is {shown(value, 40)}, no whole number from 0")


def _norm(number: int, name: str, value: Any) -> float:
    try:
        norm = float(value)
    except (TypeError, ValueError, OverflowError):
        norm = -math.inf
    if norm < 0:
        raise _BadLineError(number, f"{name} is {shown(value, 40)}, no norm: a number from 0, Infinity or NaN")
    return norm
