"""Threads: how the chunks of a pass are spread over processors. The only file that knows."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch

# Below this many elements a second thread costs more than it saves.
_INLINE = 32768

_forked = False


def _after_fork() -> None:
    # The team that the parent's threads formed does not exist in the child: work inline there.
    global _forked
    _forked = True


# Held while kernels are traced, compiled and put where all threads find them. One lock, so that there is one
# order; a fork waits for it, so that no child inherits it held.
compiling = threading.RLock()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=compiling.acquire, after_in_parent=compiling.release, after_in_child=compiling.release)
    os.register_at_fork(after_in_child=_after_fork)


def run(function: Callable[[int], None], address: int, context: int, elements: int, chunks: int) -> None:
    """Call a kernel's C function in as many threads as torch uses; each takes chunks until none is left.

    Torch's own OpenMP team runs it where there is one: threads of our own would compete with that
    team, which keeps spinning after a backward pass.
    """
    count = 1 if elements < _INLINE or _forked else min(torch.get_num_threads(), chunks)
    if count == 1:
        function(context)
        return
    parallel = _openmp_parallel()
    if parallel is not None:
        parallel(address, context, count, 0)
        return
    pool = _pool(count - 1)
    futures = [pool.submit(function, context) for _ in range(count - 1)]
    function(context)
    for future in futures:
        future.result()


@lru_cache(maxsize=1)
def _openmp_parallel() -> Callable[[int, int, int, int], None] | None:
    """`GOMP_parallel` of the libgomp that torch has loaded, or None where it uses another library."""
    if not sys.platform.startswith("linux"):
        return None
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
        paths = {line.split(maxsplit=5)[5].strip() for line in maps if "libgomp" in line}
    # Torch's wheels bring their own copy; prefer it to one that another package has loaded.
    for path in sorted(paths, key=lambda path: "torch" not in path):
        try:
            parallel = ctypes.CDLL(path).GOMP_parallel
        except (OSError, AttributeError):
            continue
        parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
        parallel.restype = None
        return parallel
    return None


@lru_cache(maxsize=8)
def _pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, thread_name_prefix="neon")
