"""Contenders take turns: medians over rounds, with the limit of memory measured in the same rounds."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from neon.bench import machine

SCALES = ("scale by torch", "scale by numba")


class Contender(NamedTuple):
    """What is timed, and what is done before it, outside the clock."""

    step: Callable[[], Any]
    prepare: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Measured:
    """What one line of the benchmark gave.

    Attributes:
        seconds: a step, for each contender and round.
        busy: how many processors others used meanwhile; None where that cannot be known.
        figures: the numbers that are compared with targets.
        details: what else explains the figures.
    """

    seconds: Mapping[str, list[float]]
    busy: float | None
    figures: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def medians(self) -> dict[str, float]:
        return {who: statistics.median(times) for who, times in self.seconds.items()}


def timed(contender: Contender, steps: int, device: str = "cpu") -> float:
    """Seconds a step; where there are several, after one that is not counted, for they are to find its caches.

    Only here is the clock read: what returns before its work is done is to be waited for here.
    """
    if contender.prepare is not None:
        contender.prepare()
    if steps > 1:
        contender.step()
    _wait(device)
    start = time.perf_counter()
    for _ in range(steps):
        contender.step()
    _wait(device)
    return (time.perf_counter() - start) / steps


def _wait(device: str) -> None:
    """Wait for what a device still has to do; a processor has done it."""
    if device != "cpu":
        torch.accelerator.synchronize(device)


def interleaved(contenders: Mapping[str, Contender], rounds: int, steps: int = 1, device: str = "cpu") -> Measured:
    """Let each contender have its turn once a round, in an order that rotates and turns around.

    Two turns before that are not counted: states are made, kernels compiled.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    with no_collection():
        for contender in [*contenders.values()] * 2:
            timed(contender, 1, device)
        watch = machine.Watch()
        for number in range(rounds):
            turn = number % len(names)
            order = names[turn:] + names[:turn]
            for name in order[:: -1 if number % 2 else 1]:
                seconds[name].append(timed(contenders[name], steps, device))
        busy = watch.busy_with_others()
    return Measured(seconds, busy)


@contextmanager
def no_collection() -> Iterator[None]:
    """Collect garbage now, and none inside the block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@numba.njit(parallel=True)
def _scale_by_numba(vector: Any, factor: Any) -> None:
    for index in numba.prange(len(vector)):
        vector[index] *= factor


def scaling(memory: Tensor) -> dict[str, Contender]:
    """Scaling memory in place by one, by torch and on a processor by numba: each byte is read and written once."""
    contenders = {"scale by torch": Contender(partial(memory.mul_, 1.0))}
    if memory.device.type == "cpu":
        contenders["scale by numba"] = Contender(partial(_scale_by_numba, memory.numpy(), np.float32(1)))
    return contenders
