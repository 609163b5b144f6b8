"""The Triton backend: a kernel printed as source for a GPU."""

from __future__ import annotations

import os

import torch

from neon.engine.backends.contract import Backend
from neon.engine.backends.device_batch import DeviceBatch
from neon.engine.backends.resident import Resident
from neon.engine.backends.triton_source import source
from neon.engine.native import cache
from neon.engine.program.kernel import Kernel
from neon.engine.program.meanings import has_float64


class Triton:
    """The functions of a kernel, by stage: what computes its numbers, if it reads any, and what updates or sums.

    Triton compiles them, for the device at hand, when they are launched first.
    """

    def __init__(self, kernel: Kernel) -> None:
        module = cache.module(kernel.name, source(kernel))
        stages = range(len(kernel.stages))
        self.numbers = [module.get(f"numbers_{n}") for n in stages]
        self.stages = [module.get(f"stage_{n}") for n in stages]


def _serves(device: torch.device) -> bool:
    """Whether a device has float64, which numbers and sums need, and Triton has not been told to run on the processor.

    Its interpreter, to debug kernels, would look up a device's addresses in the processor's memory.
    """
    interprets = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")
    return has_float64(device) and (device.type == "cpu" or not interprets)


BACKEND = Backend("triton", Triton, DeviceBatch, Resident, capturable=True, package="triton", serves=_serves)
