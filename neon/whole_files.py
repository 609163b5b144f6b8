"""Files that are there whole or not at all, whatever interrupts their writing."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

# Seconds after which a file that is not finished has no writer any more: one that writes goes on writing.
_ABANDONED = 600.0


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write through a temporary file beside `path` that then takes its name."""
    clear_unfinished(path.parent, f".{path.name}.*.unfinished")
    unfinished = path.with_name(f".{path.name}.{uuid.uuid4().hex}.unfinished")
    try:
        with unfinished.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:  # after KeyboardInterrupt too: leave no litter behind
        unfinished.unlink(missing_ok=True)


def clear_unfinished(folder: Path, pattern: str = ".*.unfinished") -> None:
    """Remove temporary files that fit a pattern and whose writer has been killed, ten minutes ago or more."""
    for path in folder.glob(pattern):
        with suppress(OSError):  # another process clears as well, or may not
            if time.time() - path.stat().st_mtime > _ABANDONED:
                path.unlink()
