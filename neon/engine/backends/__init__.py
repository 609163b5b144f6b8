"""Backends: which one runs a kernel is decided by the device of its parameters.

A new backend is a file that has a `BACKEND`, and an entry of `BACKENDS`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch

from neon.engine.backends.contract import Backend
from neon.engine.native.locks import compiling
from neon.engine.program.kernel import Kernel

# The module of each backend, imported once it is asked for, and the types of devices that it serves before eager does.
BACKENDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "eager": (f"{__name__}.eager", ()),
    "numba": (f"{__name__}.numba", ("cpu",)),
    "triton": (f"{__name__}.triton", ("cuda", "xpu")),
}

_forced: list[str | None] = [None]  # a list, so that compiled code can see what is in it
_prepared = 0


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Serve every device by one backend for the plans that are made inside the context."""
    known = next((each for each in BACKENDS if each == name), None)  # the same object each time
    if known is None:
        raise ValueError(f"Unknown backend {name!r}. Choose one of {', '.join(map(repr, BACKENDS))}.")
    before, _forced[0] = _forced[0], known
    try:
        yield
    finally:
        _forced[0] = before


def forced() -> str | None:
    """The backend that `use_backend` asks for here, if any."""
    return _forced[0]


def place_of_forced() -> list[str | None]:
    """The list whose only object is what `forced` gives."""
    return _forced


def serving(device: torch.device) -> Backend:
    """The backend that serves a device here; where it cannot, eager does its work."""
    backend = named(forced() or next((name for name, (_, types) in BACKENDS.items() if device.type in types), "eager"))
    if backend.package is not None and not _installed(backend.package):
        if forced():
            raise ModuleNotFoundError(
                f"The backend {backend.name!r} needs the package of that name: pip install {backend.package}"
            )
        return named("eager")
    return backend if backend.serves is None or backend.serves(device) else named("eager")


def named(name: str) -> Backend:
    """The backend of this name in the table."""
    return importlib.import_module(BACKENDS[name][0]).BACKEND


@lru_cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def prepare(kernel: Kernel, backend: Backend) -> Any:
    """The executable form of a kernel; made once."""
    global _prepared
    with compiling:
        if backend.name not in kernel.executables:
            kernel.executables[backend.name] = backend.prepare(kernel)
            _prepared += 1
        return kernel.executables[backend.name]


def compilations() -> int:
    """How many kernels this process has made ready so far."""
    return _prepared
