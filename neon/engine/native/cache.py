"""The kernel cache: generated source as readable files in the user's cache folder, machine code beside it.

A folder's name is a hash of all that the code depends on, and machine code is sealed with a hash of itself
and of that: nothing stale, foreign or damaged is served. A cache that cannot be used (read-only, full,
deleted) costs a compilation, never a failure.

Machine code is run as it is found, so the folder is trusted as a program is. It is made readable by its
user alone; code that another user owns, unless it is the superuser, or that others may write, is not loaded.
"""

from __future__ import annotations

import hashlib
import linecache
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neon.engine.native.locks import compiling
from neon.whole_files import clear_unfinished

if TYPE_CHECKING:
    from neon.engine.native.machine_code import Code

_UNFINISHED = ".tmp"
_SEAL = hashlib.sha256().digest_size


def folder() -> Path:
    """`NEON_CACHE_DIR`, or `neon` in the user's cache folder."""
    given = os.environ.get("NEON_CACHE_DIR")
    if given:
        return Path(given)
    import platformdirs

    return Path(platformdirs.user_cache_dir("neon"))


def path_of(name: str, source: str) -> Path:
    """Where a generated source is kept."""
    return folder() / _key(source).hex()[:16] / f"{name}.py"


def load(name: str, source: str, stages: int) -> Code:
    """The machine code of a generated source, from the cache where it is there.

    A source that all of numba cannot compile raises what numba says.
    """
    from neon.engine.native import machine_code  # with LLVM, which only the first step needs

    path, key = path_of(name, source), _key(source)
    with compiling:
        image, code = _unsealed(path.with_suffix(".o"), key), None
        if image is not None:
            with suppress(RuntimeError):  # it was linked with a library that is not there now
                code = machine_code.link(image, stages)
        if code is None:
            image, code = machine_code.compiled(source, path, stages)
            with suppress(OSError):
                clear_unfinished(folder(), f"*/*{_UNFINISHED}")  # of processes that were killed
        if image is not None:
            _keep({path: source.encode(), path.with_suffix(".o"): image + _seal(key, image)})
        return code


def module(name: str, source: str) -> dict[str, Any]:
    """The globals of a generated source that is run as a Python module; its file is for whoever reads it."""
    path = path_of(name, source)
    with compiling:
        _keep({path: source.encode()})
    # Not what the file holds but what was asked for: Triton too reads a function's source from here.
    linecache.cache[str(path)] = (len(source), None, source.splitlines(keepends=True), str(path))
    scope: dict[str, Any] = {"__name__": f"neon.generated.{name}_{path.parent.name}", "__file__": str(path)}
    exec(compile(source, path, "exec"), scope)  # noqa: S102 (the graph alone is its source)
    return scope


def _key(source: str) -> bytes:
    from neon.engine.native import machine_code

    return hashlib.sha256(f"{machine_code.environment()}\n{source}".encode()).digest()


def _seal(key: bytes, image: bytes) -> bytes:
    """What follows the object in its file."""
    return hashlib.sha256(key + image).digest()


def _unsealed(path: Path, key: bytes) -> bytes | None:
    """The object that a file holds, if it is all there and may be trusted."""
    with suppress(OSError), path.open("rb") as file:
        if _only_ours(os.fstat(file.fileno())):
            data = file.read()
            image = data[:-_SEAL]
            return image if data == image + _seal(key, image) else None
    return None


def _only_ours(file: os.stat_result) -> bool:
    if not hasattr(os, "getuid"):  # Windows keeps a user's folders from others by other means
        return True
    return file.st_uid in (0, os.getuid()) and not file.st_mode & 0o022


def _keep(files: dict[Path, bytes]) -> None:
    """Write what is not there yet; where something is in the way, begin the kernel's folder again."""
    with suppress(OSError):
        _write(files)
        return
    for path in files:
        shutil.rmtree(path.parent, ignore_errors=True)
    with suppress(OSError):
        _write(files)


def _write(files: dict[Path, bytes]) -> None:
    for path, contents in files.items():
        if _read(path) != contents:
            path.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.parent.mkdir(mode=0o700, exist_ok=True)
            _put(path, contents)


def _read(path: Path) -> bytes | None:
    with suppress(OSError):
        return path.read_bytes()
    return None


def _put(path: Path, contents: bytes) -> None:
    """Put a file in place in one move, so that another process sees all of it or nothing."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=_UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(contents)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
