"""Threads: how the chunks of a pass are spread over processors. The only file that knows."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch

# Up to so many elements, or so many a chunk on average, the calling thread is quicker alone: small chunks are
# done sooner than the counter has gone from one processor to another. benchmarks/threads.py measures it.
_ALONE = 32768
_SMALL = 1024
# Threads of our own sleep between passes: to wake them takes as long as a pass over so many elements.
_ALONE_BESIDE_POOL = 262144

Function = Callable[[int], None]


def _torch_team() -> Any:
    """`GOMP_parallel` as torch's own code is bound to it, or None where there is no such function."""
    if not sys.platform.startswith("linux"):
        return None
    # The linker's order: what all share (torch itself opens its OpenMP library so, and a preloaded one comes
    # first), then what torch depends on. A copy that another package keeps to itself is not found.
    for library in (None, torch._C.__file__):
        try:
            parallel = ctypes.CDLL(library).GOMP_parallel
        except (OSError, AttributeError):
            continue
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel
    return None


class _Pool:
    """Threads of our own, asleep between passes; they end with the process."""

    def __init__(self) -> None:
        self._tasks: SimpleQueue[tuple[Function, int, threading.Event]] = SimpleQueue()
        self._size = 0
        self._growing = threading.Lock()

    def run(self, function: Function, context: int, count: int) -> None:
        """Call a function in so many threads, this one among them."""
        finished = [threading.Event() for _ in range(min(count - 1, self._grow(count - 1)))]
        for event in finished:
            self._tasks.put((function, context, event))
        try:
            function(context)
            self._wait(finished)
        finally:  # also after an interrupt: memory that a thread still writes must not be let go
            self._wait(finished)

    def _wait(self, events: list[threading.Event]) -> None:
        for event in events:
            event.wait()

    def _grow(self, size: int) -> int:
        """Start what is missing of so many threads; how many there are, which may be fewer."""
        with self._growing:
            while self._size < size:
                try:
                    threading.Thread(target=self._work, name="neon", daemon=True).start()
                except RuntimeError:  # the system gives no more, or the interpreter is on its way out
                    break
                self._size += 1
            return self._size

    def _work(self) -> None:
        while True:
            function, context, event = self._tasks.get()
            function(context)
            event.set()


forked = np.zeros(1, np.int64)  # 1 in a process that was forked off, for compiled code to read
_team = _torch_team()
_pool = _Pool()


def is_worth(elements: int, chunks: int) -> bool:
    """Whether a pass is worth more threads than the calling one."""
    return elements > _ALONE and elements > _SMALL * chunks and chunks > 1


def team() -> int:
    """The address of `GOMP_parallel` for torch's team; 0 where there is none."""
    return 0 if _team is None else ctypes.cast(_team, ctypes.c_void_p).value or 0


def run(function: Function, address: int, context: int, elements: int, chunks: int) -> None:
    """Call a kernel's C function in as many threads as torch uses; each takes chunks until none is left.

    Torch's own OpenMP team runs it where there is one: threads of our own would compete with that
    team, which keeps spinning after a backward pass. It is always the whole team, for libgomp ends the
    threads that a smaller one leaves out, and torch's next operation would start them anew.
    """
    count = torch.get_num_threads() if is_worth(elements, chunks) else 1
    if count > 1 and _team is not None:
        _team(address, context, count, 0)
    elif count > 1 and elements > _ALONE_BESIDE_POOL:
        _pool.run(function, context, min(count, chunks))
    else:
        function(context)


def _after_fork() -> None:
    """The parent's threads do not exist in a child, though its team and its pool believe that they do."""
    global _team, _pool
    _team, _pool = None, _Pool()
    forked[0] = 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
