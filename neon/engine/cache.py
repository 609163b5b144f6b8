"""The kernel cache: generated source as readable files in the user's cache folder, compiled code beside it.

A folder's name is a hash of all that the code depends on, so nothing stale is ever served. A cache
that cannot be used (damaged, read-only) costs a compilation, never a failure.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import llvmlite
import numba
import platformdirs

import neon
from neon.engine.backends import numba_intrinsics

_lock = threading.Lock()


def folder() -> Path:
    """`NEON_CACHE_DIR`, or `neon` in the user's cache folder."""
    return Path(os.environ.get("NEON_CACHE_DIR") or platformdirs.user_cache_dir("neon"))


@lru_cache(maxsize=1)
def _environment() -> str:
    """What compiled code depends on besides its source; numba itself tells processors apart."""
    intrinsics = Path(numba_intrinsics.__file__).read_text(encoding="utf-8")
    versions = (neon.__version__, numba.__version__, llvmlite.__version__, sys.version)
    return "\n".join((*versions, intrinsics))


@lru_cache(maxsize=1)
def _private_folder() -> Path:
    """Where kernels go while the cache cannot be used: gone when the process ends."""
    temporary = tempfile.TemporaryDirectory(prefix="neon-")
    _keep.append(temporary)
    return Path(temporary.name)


_keep: list[tempfile.TemporaryDirectory[str]] = []


def load(name: str, source: str) -> ModuleType:
    """The module of a generated source, compiled, from the cache where it is there."""
    digest = hashlib.sha256((_environment() + source).encode()).hexdigest()[:16]
    with _lock:
        place = folder() / digest
        for attempt in range(3):
            if attempt == 1:  # whatever is there cannot be read: begin again
                shutil.rmtree(place, ignore_errors=True)
            if attempt == 2:
                place = _private_folder() / digest
            try:
                return _import(name, place / f"{name}.py", source)
            except Exception:
                if attempt == 2:
                    raise
    raise AssertionError


def _import(name: str, path: Path, source: str) -> ModuleType:
    _write(path, source)
    spec = importlib.util.spec_from_file_location(f"neon_kernels.{path.parent.name}.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _write(path: Path, source: str) -> None:
    """Put the source in place in one move, so that another process sees all of it or nothing."""
    with suppress(OSError, UnicodeDecodeError):
        if path.read_text(encoding="utf-8") == source:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(source)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
