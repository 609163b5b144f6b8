"""What kernels compute: each stage alone, on one thread, over memory that stays in the cache.

    python benchmarks/in_cache.py          # nanoseconds an element and stage, the least of 60 turns; two minutes

A stage that takes less here than its bytes take from memory is bound by memory there.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from unittest import mock

import torch

from neon.engine.native import threads
from neon.optimizers import LARS, Adafactor, Adam, Optimizer, ShiftAdaMax

ELEMENTS = (32, 1024)
TURNS, REPEATED = 60, 5
CASES: dict[str, tuple[Optimizer, torch.dtype]] = {
    "Adam, float32": (Adam(), torch.float32),
    "Adam, 8-bit states": (Adam(state_dtype="int8"), torch.float32),
    "Adam, bfloat16 at random, 8-bit states": (Adam(True, state_dtype="int8"), torch.bfloat16),
    "Adam, 16-bit states": (Adam(state_dtype="bfloat16"), torch.float32),
    "Adam, bfloat16": (Adam(), torch.bfloat16),
    "Adam, bfloat16 at random": (Adam(True), torch.bfloat16),
    "Adam, bfloat16 split": (Adam(master="split"), torch.bfloat16),
    "Adam, float16": (Adam(), torch.float16),
    "Adam, clip by norm": (Adam(gradient_clip_norm=1.0), torch.float32),
    "Adam, bfloat16, clip by norm": (Adam(gradient_clip_norm=1.0), torch.bfloat16),
    "ShiftAdaMax, float32": (ShiftAdaMax(), torch.float32),
    "ShiftAdaMax, bfloat16 at random": (ShiftAdaMax(True), torch.bfloat16),
    "LARS, float32": (LARS(), torch.float32),
    "Adafactor, float32": (Adafactor(), torch.float32),
}


def stages(optimizer: Optimizer, dtype: torch.dtype) -> list[float]:
    """The nanoseconds of each stage of a step, in order, for each element."""
    param = torch.rand(ELEMENTS).to(dtype).requires_grad_()
    param.grad = torch.rand(ELEMENTS).sub_(0.5).to(dtype)
    attached = optimizer.attach([param])
    attached.step()
    taken: list[float] = []

    def timed(function: Callable[[int], None], _: int, context: int, *_sizes: int) -> None:
        taken.append(min(_turn(function, context) for _ in range(TURNS)) * 1e9 / param.numel())

    with mock.patch.object(threads, "run", timed):
        attached.step()
    return taken


def _turn(function: Callable[[int], None], context: int) -> float:
    first = ctypes.c_int64.from_address(context)
    start = time.perf_counter()
    for _ in range(REPEATED):
        first.value = 0  # the chunk to take next
        function(context)
    return (time.perf_counter() - start) / REPEATED


if __name__ == "__main__":
    for name, case in CASES.items():
        print(f"{name:40}", *(f"{taken:.3f}" for taken in stages(*case)))
