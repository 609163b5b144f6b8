"""How the chunks of a pass are best spread over threads: the ways there are, side by side.

    python benchmarks/threads.py                                # three situations, about a minute and a half
    python benchmarks/threads.py --situations backward --sizes 16384 65536
    python benchmarks/threads.py --tensors 1 --chunks 16384 65536 --sizes 100000 1000000

One pass of float32 Adam is timed, alone: in `steady` one pass follows another; in `backward` each follows
a backward pass of a small network, whose OpenMP threads still spin; in `rested` each follows a pause in
which all threads have gone to sleep. Contenders: the calling thread alone (inline), torch's own OpenMP
team (team), neon's waiting threads (pool), threads started for each pass (fresh), and numba's prange over
one tensor of as many elements, on the threads that NUMBA_THREADING_LAYER names. Every contender has its
turn in every round, in an order that rotates, after a pause and, but in `rested`, as long a time of
warming up. Writes a table, and benchmarks/results/threads-DEVICE.json.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from numba.np.ufunc.parallel import threading_layer
from rich.console import Console
from rich.table import Table
from torch import nn

from neon.commands import machine
from neon.engine import batch
from neon.engine.native import threads
from neon.engine.program import kernel
from neon.optimizers import Adam

SIZES = [4096, 8192, 16384, 32768, 65536, 131072, 262144, 1 << 20, 1 << 22, 1 << 24, 50_000_000]
PAUSE = 0.03  # seconds; longer than idle threads of an OpenMP team spin
SITUATIONS = ("steady", "backward", "rested")


@dataclass(frozen=True)
class Pass:
    """What `threads.run` is called with; `keep` owns the memory."""

    function: Callable[[int], None]
    address: int
    context: int
    elements: int
    chunks: int
    keep: Any

    def rewind(self) -> None:
        """Let the first chunk be the next one."""
        ctypes.c_int64.from_address(self.context).value = 0


def adam_pass(elements: int, tensors: int, chunk: int) -> Pass:
    """The pass of an Adam step over so many equal tensors, cut into chunks of so many elements."""
    torch.manual_seed(0)
    params = [nn.Parameter(torch.randn(elements // tensors)) for _ in range(tensors)]
    for param in params:
        param.grad = torch.randn_like(param)
    optimizer = Adam().attach(params)
    calls: list[Any] = []
    run, before = threads.run, batch.CHUNK
    threads.run, batch.CHUNK = lambda *call: calls.append(call), chunk
    try:
        optimizer.step()
    finally:
        threads.run, batch.CHUNK = run, before
    return Pass(*calls[0], keep=optimizer)


@numba.njit(parallel=True, error_model="numpy")
def adam_by_numba(w: Any, g: Any, m: Any, v: Any, lr: Any, b: Any, c: Any, eps: Any) -> None:
    for i in numba.prange(len(w)):
        m[i] += b * (g[i] - m[i])
        v[i] += c * (g[i] * g[i] - v[i])
        w[i] -= lr * m[i] / (np.sqrt(v[i]) + eps)


def contenders(work: Pass) -> dict[str, Callable[[], Any]]:
    """The ways to do a pass."""
    count = min(torch.get_num_threads(), work.chunks)

    def fresh() -> None:
        started = [threading.Thread(target=work.function, args=(work.context,)) for _ in range(count - 1)]
        for thread in started:
            thread.start()
        work.function(work.context)
        for thread in started:
            thread.join()

    arrays = [np.ones(work.elements, np.float32) for _ in range(4)]
    numbers = [np.float32(x) for x in (1e-3, 0.1, 1e-3, 1e-8)]
    ways: dict[str, Callable[[], Any]] = {"inline": lambda: work.function(work.context)}
    team, pool = threads._team, threads._Pool()
    if team is not None:
        ways["team"] = lambda: team(work.address, work.context, torch.get_num_threads(), 0)
    ways["pool"] = lambda: pool.run(work.function, work.context, count)
    ways["fresh"] = fresh
    ways["prange"] = lambda: adam_by_numba(*arrays, *numbers)
    return ways


def backward() -> Callable[[], None]:
    """A forward and backward pass of a small network."""
    network = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10))
    inputs = torch.randn(128, 256)

    def run() -> None:
        network.zero_grad()
        network(inputs).square().mean().backward()

    return run


def measure(work: Pass, situation: str, rounds: int) -> dict[str, Any]:
    """Median seconds of a pass, by contender."""
    ways = contenders(work)
    before = backward() if situation == "backward" else lambda: None
    repeats = {"steady": max(2, min(100, 2_000_000 // work.elements)), "backward": 5, "rested": 1}[situation]
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for number in range(-1, rounds):  # the first round compiles and warms up
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            time.sleep(PAUSE)
            if situation != "rested":
                warm_up(work, ways[name], before)
            times = [timed(work, ways[name], before) for _ in range(repeats)]
            if number >= 0:
                seconds[name].append(statistics.median(times))
    return {
        "median_seconds": {name: statistics.median(times) for name, times in seconds.items()},
        "quartiles": {name: statistics.quantiles(times)[::2] for name, times in seconds.items()},
    }


def warm_up(work: Pass, way: Callable[[], Any], before: Callable[[], None]) -> None:
    """Go on until what the pause put to sleep is awake, on a processor of its own."""
    end = time.perf_counter() + PAUSE
    while time.perf_counter() < end:
        timed(work, way, before)


def timed(work: Pass, way: Callable[[], Any], before: Callable[[], None]) -> float:
    work.rewind()
    before()
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def table(situation: str, lines: list[dict[str, Any]]) -> Table:
    """The lines of one situation, in microseconds; the quickest stands out."""
    shown = Table(title=f"{situation}: µs a pass of float32 Adam, {torch.get_num_threads()} threads")
    names = list(lines[0]["median_seconds"])
    for column in ("elements", "tensors", "chunk", *names):
        shown.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        medians = line["median_seconds"]
        best = min(medians, key=medians.__getitem__)
        cells = [f"[bold]{medians[n] * 1e6:.4g}[/]" if n == best else f"{medians[n] * 1e6:.4g}" for n in names]
        shown.add_row(f"{line['elements']:,}", str(line["tensors"]), f"{line['chunk']:,}", *cells)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES, help="elements of a pass")
    parser.add_argument("--tensors", type=int, default=8, help="equal tensors that they belong to")
    parser.add_argument("--chunks", nargs="+", type=int, default=[kernel.CHUNK], help="elements of a chunk")
    parser.add_argument("--situations", nargs="+", choices=SITUATIONS, default=SITUATIONS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    numba.set_num_threads(torch.get_num_threads())
    lines: list[dict[str, Any]] = []
    report = {"device": machine.device(), "load_before": os.getloadavg(), "rounds": options.rounds}
    watch = machine.Watch()
    for situation in options.situations:
        for elements in options.sizes:
            for chunk in options.chunks:
                work = adam_pass(elements, options.tensors, chunk)
                line = {"situation": situation, "elements": work.elements, "tensors": options.tensors, "chunk": chunk}
                lines.append(line | measure(work, situation, options.rounds))
    others = watch.busy_with_others()
    report["numba_layer"] = threading_layer()
    console = Console(width=None if sys.stdout.isatty() else 110)
    for situation in options.situations:
        console.print(table(situation, [line for line in lines if line["situation"] == situation]))
    console.print(f"Processors busy with something else meanwhile: {others}")
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"threads-{machine.file_name(report['device'])}.json"
    path.write_text(json.dumps({**report, "busy_with_others": others, "lines": lines}, indent=1) + "\n")
    console.print(f"Written to {path}")


if __name__ == "__main__":
    main()
