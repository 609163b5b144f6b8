"""Backends: which one runs a kernel is decided by the device of its parameters."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import torch

from neon.engine.native import threads

if TYPE_CHECKING:
    from neon.engine.batch import Batch
    from neon.engine.program.kernel import Kernel

# Device type -> the module of this package that serves it; every other device is served by eager.
DEVICES = {"cpu": "numba", "cuda": "triton", "xpu": "triton"}


class Executable(Protocol):
    """A kernel made ready by a backend."""

    def run(self, batch: Batch, level: int) -> None:
        """Run one stage over the tensors of a batch."""
        ...


_forced: str | None = None
_prepared = 0


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Serve every device by one backend for the plans that are made inside the context."""
    global _forced
    allowed = ("eager", *dict.fromkeys(DEVICES.values()))
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


def serving(device: torch.device) -> str:
    """The backend that serves a device here; where Triton cannot, eager does its work."""
    name = _forced or DEVICES.get(device.type, "eager")
    if name == "triton" and not _has_triton():
        if _forced:
            raise ModuleNotFoundError("The backend 'triton' needs the package of that name: pip install triton")
        return "eager"
    if name == "triton" and device.type != "cpu" and _interprets():
        return "eager"  # Triton's interpreter would look up the device's addresses in the processor's memory
    return name if name != "triton" or has_float64(device) else "eager"


@lru_cache
def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64, as numbers and sums do: Metal does not, nor do some GPUs of Intel's."""
    if device.type == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return device.type != "mps"


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _interprets() -> bool:
    """Whether Triton has been told to run kernels on the processor, to debug them."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")


def prepare(kernel: Kernel, device: torch.device) -> Any:
    """The executable form of a kernel on a device; made once."""
    global _prepared
    name = serving(device)
    with threads.compiling:
        if name not in kernel.executables:
            backend = importlib.import_module(f"{__name__}.{name}")
            kernel.executables[name] = backend.prepare(kernel)
            _prepared += 1
        return kernel.executables[name]


def compilations() -> int:
    """How many kernels this process has made ready so far."""
    return _prepared
