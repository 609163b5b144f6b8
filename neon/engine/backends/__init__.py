"""Backends: which one runs a kernel is decided by the device of its parameters."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from neon.engine import threads

if TYPE_CHECKING:
    from neon.engine.batch import Batch
    from neon.engine.kernel import Kernel

# Device type -> the module of this package that serves it; every other device is served by eager.
DEVICES = {"cpu": "numba"}


class Executable(Protocol):
    """A kernel made ready by a backend."""

    def run(self, batch: Batch, level: int) -> None:
        """Run one stage over the tensors of a batch."""
        ...


_forced: str | None = None
_prepared: dict[tuple[str, Kernel], Executable] = {}


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Serve every device by one backend for the plans that are made inside the context."""
    global _forced
    allowed = ("eager", *DEVICES.values())
    if name not in allowed:
        raise ValueError(f"Unknown backend {name!r}. Choose one of {', '.join(map(repr, allowed))}.")
    before, _forced = _forced, name
    try:
        yield
    finally:
        _forced = before


def forced() -> str | None:
    """The backend that `use_backend` asks for here, if any."""
    return _forced


def prepare(kernel: Kernel, device: str) -> Executable:
    """The executable form of a kernel on a device; made once in a process."""
    name = _forced or DEVICES.get(device, "eager")
    with threads.compiling:
        if (name, kernel) not in _prepared:
            backend = importlib.import_module(f"{__name__}.{name}")
            _prepared[name, kernel] = backend.prepare(kernel)
        return _prepared[name, kernel]


def compilations() -> int:
    """How many kernels this process has made ready so far."""
    return len(_prepared)
