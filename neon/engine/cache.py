"""The kernel cache: generated source as readable files in the user's cache folder, compiled code beside it.

A folder's name is a hash of all that the code depends on, so nothing stale is ever served. A cache
that cannot be used (damaged, read-only) costs a compilation, never a failure.
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import llvmlite
import numba
import platformdirs

import neon
from neon.engine import threads
from neon.engine.backends import numba_intrinsics


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
    path = tempfile.mkdtemp(prefix="neon-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


def path_of(name: str, source: str) -> Path:
    """Where a generated source is kept."""
    digest = hashlib.sha256((_environment() + source).encode()).hexdigest()[:16]
    return folder() / digest / f"{name}.py"


def load(name: str, source: str) -> ModuleType:
    """The module of a generated source, compiled, from the cache where it is there."""
    path = path_of(name, source)
    with threads.compiling:
        with suppress(Exception):
            return _import(path, source)
        shutil.rmtree(path.parent, ignore_errors=True)  # what is there cannot be read: begin again
        with suppress(Exception):
            return _import(path, source)
        return _import(_private_folder() / path.parent.name / path.name, source)


def _import(path: Path, source: str) -> ModuleType:
    _write(path, source)
    compiled, seal = path.parent / "__pycache__", path.parent / "compiled.sha256"
    # Machine code that is not what was written there would take the process down when it runs.
    if compiled.exists() and _read(seal) != _contents(compiled):
        shutil.rmtree(compiled)
    module = _execute(path)
    if compiled.exists():
        _write(seal, _contents(compiled))
    return module


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"neon_kernels.{path.parent.name}.{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # numba's cached code names the module it belongs to
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _contents(compiled: Path) -> str:
    """A hash of all compiled code of a kernel."""
    digest = hashlib.sha256()
    for file in sorted(compiled.glob("*.nb*")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def _read(path: Path) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text(encoding="utf-8")
    return None


def _write(path: Path, source: str) -> None:
    """Put a text in place in one move, so that another process sees all of it or nothing."""
    if _read(path) == source:
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
