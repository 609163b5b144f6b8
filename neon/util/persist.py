"""Folders that programs of the documented framework make for their files and their data."""

from __future__ import annotations

import os
from pathlib import Path

from neon.old_paths import names_of

__all__ = ["ensure_dirs_exist", "get_data_cache_dir", "get_data_cache_or_nothing"]


def ensure_dirs_exist(path: str) -> str:
    """Make the folder of a file, or the folder itself where `path` ends with a slash. Returns `path`."""
    Path(os.path.dirname(path) or ".").mkdir(parents=True, exist_ok=True)
    return path


def get_data_cache_dir(data_dir: str, subdir: str | list[str] | None = None) -> str:
    """A folder for data, made where it is missing: `subdir` of $NEON_DATA_CACHE_DIR, or of `data_dir` without it."""
    inner = [subdir] if isinstance(subdir, str) else subdir or []
    found = os.path.join(os.environ.get("NEON_DATA_CACHE_DIR", data_dir), *inner)
    Path(found).mkdir(parents=True, exist_ok=True)
    return found


def get_data_cache_or_nothing(subdir: str | None = None) -> str:
    """`subdir` of $NEON_DATA_CACHE_DIR, made as `ensure_dirs_exist` makes it; "" where that is not set."""
    root = os.environ.get("NEON_DATA_CACHE_DIR")
    return "" if root is None else ensure_dirs_exist(os.path.join(root, subdir or ""))


__getattr__ = names_of(__name__, __name__)
