"""Contenders take turns: medians over rounds, with the limit of memory measured in the same rounds."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from neon.commands import machine

SCALES = ("scale by torch", "scale by numba")
# Steps in a turn on a GPU, at least. Where they take it longer than the host, it waits for the host only once a turn.
AHEAD = 10


class Contender(NamedTuple):
    """What is timed, and what is done before it, outside the clock."""

    step: Callable[[], Any]
    prepare: Callable[[], Any] | None = None


class Turn(NamedTuple):
    """Seconds a step, and of these what the host had to do; on a processor they are the same."""

    seconds: float
    host: float


def timed(contender: Contender, steps: int, device: str = "cpu") -> Turn:
    """One turn; where it has several steps, after one that is not counted, for they are to find its caches.

    Only here is the clock read. A GPU, which goes on when the host has returned, tells its own time.
    """
    if contender.prepare is not None:
        contender.prepare()
    if steps > 1:
        contender.step()
    if device != "cpu":
        return _timed_on_device(contender.step, steps, device)
    start = time.perf_counter()
    for _ in range(steps):
        contender.step()
    seconds = (time.perf_counter() - start) / steps
    return Turn(seconds, seconds)


def _timed_on_device(step: Callable[[], Any], steps: int, device: str) -> Turn:
    begin, end = (torch.Event(device, enable_timing=True) for _ in range(2))
    torch.accelerator.synchronize(device)
    begin.record()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    host = time.perf_counter() - start
    end.record()
    end.synchronize()
    return Turn(begin.elapsed_time(end) / 1e3 / steps, host / steps)


def interleaved(
    contenders: Mapping[str, Contender], rounds: int, steps: int = 1, device: str = "cpu"
) -> tuple[dict[str, list[Turn]], float | None]:
    """Let each contender have its turn once a round, in an order that rotates and turns around.

    No garbage is collected meanwhile. Two turns before that are not counted: states are made, kernels compiled.
    Returned are the turns of each, and how many processors others used meanwhile, or None where nobody knows.
    """
    if device != "cpu":
        steps = max(steps, AHEAD)
    turns: dict[str, list[Turn]] = {name: [] for name in contenders}
    names = list(contenders)
    gc.collect()
    gc.disable()
    try:
        for contender in [*contenders.values()] * 2:
            timed(contender, 1, device)
        watch = machine.Watch()
        for number in range(rounds):
            turn = number % len(names)
            order = names[turn:] + names[:turn]
            for name in order[:: -1 if number % 2 else 1]:
                turns[name].append(timed(contenders[name], steps, device))
        return turns, watch.busy_with_others()
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
