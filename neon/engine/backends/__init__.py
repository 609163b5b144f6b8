"""Backends: which one runs a kernel is decided by the device of its parameters.

A new backend is a file that has a `BACKEND`, and an entry of `BACKENDS`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from neon.engine.backends.contract import Backend
from neon.engine.native.locks import compiling
from neon.engine.program.kernel import Kernel


class Entry(NamedTuple):
    """Where a backend is found once it is asked for, which types of devices it serves, which package it needs."""

    module: str
    devices: tuple[str, ...] = ()
    package: str | None = None

    def backend(self) -> Backend:
        """What its module calls `BACKEND`."""
        return importlib.import_module(self.module).BACKEND


# Devices that none of these names are served by eager.
BACKENDS: dict[str, Entry] = {
    "eager": Entry(f"{__name__}.eager"),
    "numba": Entry(f"{__name__}.numba", ("cpu",)),
    "triton": Entry(f"{__name__}.triton", ("cuda", "xpu"), package="triton"),
}

_forced: str | None = None
_prepared = 0


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Serve every device by one backend for the plans that are made inside the context."""
    global _forced
    if name not in BACKENDS:
        raise ValueError(f"Unknown backend {name!r}. Choose one of {', '.join(map(repr, BACKENDS))}.")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def forced() -> str | None:
    """The backend that `use_backend` asks for here, if any."""
    return _forced


def serving(device: torch.device) -> Backend:
    """The backend that serves a device here; where it cannot, eager does its work."""
    served = (name for name, entry in BACKENDS.items() if device.type in entry.devices)
    name = _forced or next(served, "eager")
    package = BACKENDS[name].package
    if package is None or _installed(package):
        backend = BACKENDS[name].backend()
        if backend.serves is None or backend.serves(device):
            return backend
    elif _forced:
        raise ModuleNotFoundError(f"The backend {name!r} needs the package of that name: pip install {package}")
    return BACKENDS["eager"].backend()


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
