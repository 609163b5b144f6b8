"""What commands leave: lines and tables on the terminal, JSON that is there whole, in a directory that takes it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from neon.commands.errors import OutputError
from neon.commands.references import one_line
from neon.whole_files import clear_unfinished, write_atomically


def require_writable(directory: Path) -> None:
    """Make the directory if it is absent, and clear it of what a killed process has left unfinished.

    Raises:
        OutputError: it cannot be made or written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
        clear_unfinished(directory)
    except OSError as error:
        raise OutputError(
            f"cannot write to the output directory {directory}: {one_line(error)}. Give another one with --output."
        ) from error


def write_json(path: Path, value: object) -> None:
    """Write JSON that is either wholly there or not there."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False)
    write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def new_table(title: str | Text, caption: str | None = None) -> Table:
    """A table without columns, its title above it and its caption below, both at the left."""
    table = Table(title=title, caption=caption, box=box.SIMPLE_HEAD, pad_edge=False)
    table.title_justify = table.caption_justify = "left"
    return table


def print_line(console: Console, text: str) -> None:
    """Print one line as it is, however long: nothing in it is markup."""
    console.print(text, markup=False, emoji=False, highlight=False, soft_wrap=True)


def print_written(console: Console, paths: Iterable[Path]) -> None:
    """Say which files a command has left."""
    print_line(console, "Written: " + ", ".join(map(str, paths)))
