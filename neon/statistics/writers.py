"""Rows of statistics, on to where people look: CSV and JSONL, which can be read back, TensorBoard, Weights & Biases."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import IO, Any

from neon.messages import listed, quoted

Record = Mapping[str, Any]
# The figures that loggers are given unless told otherwise.
FIGURES = (
    "update_to_weight",
    "gradient_norm",
    "weight_norm",
    "update_norm",
    "largest_gradient",
    "unmoved",
    "lost",
    "clipped",
    "clip_factor",
    "learning_rate",
)
_BLOCK = 65536  # bytes that are read at once
# What stands for the numbers that JSON has none for; `float` reads it, and so does pandas.
_WORDS = {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}


# One file takes the tables of all steps, one after another.


def append_csv(path: str | os.PathLike[str], columns: Sequence[str], records: Iterable[Record]) -> None:
    """Append a line for each record, and before the first the names of the columns.

    None is an empty cell; several numbers in one cell are separated by spaces.

    Raises:
        ValueError: the file was begun with other columns.
    """

    def cell(value: Any) -> Any:
        return " ".join(map(str, _plain(value))) if isinstance(value, tuple) else _plain(value)

    lines = StringIO()
    csv.writer(lines, lineterminator="\n").writerows([cell(record[name]) for name in columns] for record in records)
    _append(Path(path), columns, lines.getvalue(), lambda line: line.split(","), header=",".join(columns) + "\n")


def append_jsonl(path: str | os.PathLike[str], columns: Sequence[str], records: Iterable[Record]) -> None:
    """Append a line of JSON for each record; NaN and infinities are the strings "NaN", "Infinity" and "-Infinity".

    Raises:
        ValueError: the file was begun with other columns.
    """
    values = ({name: _plain(record[name]) for name in columns} for record in records)
    lines = "".join(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values)
    _append(Path(path), columns, lines, lambda line: list(dict(json.loads(line))))


# What a file that ends so is written by.
APPENDED: Mapping[str, Callable[..., None]] = {".csv": append_csv, ".jsonl": append_jsonl}


def check_suffix(path: str | os.PathLike[str]) -> str:
    """How a file ends that can be written.

    Raises:
        ValueError: it ends otherwise.
    """
    suffix = Path(path).suffix
    if suffix not in APPENDED:
        raise ValueError(f"statistics are written to files that end with .jsonl or .csv; received {str(path)!r}.")
    return suffix


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return _WORDS[str(float(value))]
    return value


def _append(
    path: Path, columns: Sequence[str], lines: str, columns_of: Callable[[str], list[str]], header: str = ""
) -> None:
    """Append lines in one write. What a killed process has left of its last line is taken away first."""
    with path.open("a+b") as file:
        file.seek(0)
        first = file.readline()
        if first:
            _check_columns(path, columns, first, columns_of)
            cut_off = _begin_of_cut_off(file)
            if cut_off is not None:  # else nothing is taken away of what another process writes right now
                file.truncate(cut_off)
        file.write((lines if first else header + lines).encode("utf-8"))


def _check_columns(path: Path, columns: Sequence[str], line: bytes, columns_of: Callable[[str], list[str]]) -> None:
    try:
        found = columns_of(line.decode("utf-8").strip())
        whole = line.endswith(b"\n")
    except (TypeError, ValueError):  # no JSON object, no text
        found, whole = [], False
    if found == list(columns) and whole:
        return
    missing, other = ([name for name in a if name not in b] for a, b in ((columns, found), (found, columns)))
    known = whole and len(missing) < len(columns)
    differs = f"without {listed(missing)}, with {listed(other)}" if known else "no line of statistics"
    raise ValueError(f"{quoted(str(path))} was begun with other columns ({differs}). Write to a new file.")


def _begin_of_cut_off(file: IO[bytes]) -> int | None:
    """Where the last line of a file begins if it has no end, else None; there is a whole line."""
    end = size = file.seek(0, os.SEEK_END)
    while True:
        begin = max(end - _BLOCK, 0)
        file.seek(begin)
        found = file.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1 if begin + found + 1 < size else None
        end = begin


# -- loggers ---------------------------------------------------------------------------------------


def figures(columns: Sequence[str] | str, records: Iterable[Record]) -> dict[str, float]:
    """Every number that there is of some columns, or of one, as `update_to_weight/0.weight`.

    Of the model's own parameters together, whose layer has no name, it is `update_to_weight` alone.

    Raises:
        ValueError: a column has no numbers, or there is none of that name.
    """
    columns = (columns,) if isinstance(columns, str) else columns
    unknown = [name for name in columns if name not in FIGURES]
    if unknown:
        raise ValueError(f"columns of figures are {', '.join(FIGURES)}; received {listed(unknown)}.")
    found = ((f"{name}/{record['parameter']}".rstrip("/"), record[name]) for record in records for name in columns)
    return {tag: value for tag, value in found if value is not None}
