"""The ways to orthogonalise matrices beside torch.optim.Muon's function: time and error, by shape.

    python benchmarks/orthogonalize.py                          # a minute and a half
    python benchmarks/orthogonalize.py --markdown --threads 1 --clock cpu --shapes 144x64x64 1x768x3072

Same coefficients (Keller Jordan's), same five steps. In a round torch's function and each way have their turn; a ratio
is the median over rounds of torch's time by the way's. Errors are those of a whole update against the iteration in
float64, of a matrix with singular values from 1e-6 to 1. On a machine that others use, `--clock cpu` with one thread
counts the process's own time.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.optim._muon import _zeropower_via_newtonschulz

from neon.engine.calls.orthogonalize import orthogonalize, processor, way_of
from neon.engine.calls.ways import WAYS

STEP, STEPS, EPS = (3.4445, -4.7750, 2.0315), 5, 1e-7
SHAPES = "144x64x64 36x128x128 12x256x256 6x256x1024 4x512x512 1x768x768 1x768x1536 1x768x2304 1x768x3072 1x3072x768"
GPT2 = {(768, 768): 12, (768, 2304): 12, (768, 3072): 12, (3072, 768): 12}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Times = dict[str, list[float]]


def of_wide_spectrum(rows: int, columns: int) -> Tensor:
    side = min(rows, columns)
    left, right = (torch.linalg.qr(torch.randn(n, side, dtype=torch.float64))[0] for n in (rows, columns))
    return ((left * torch.logspace(-6, 0, side, dtype=torch.float64)) @ right.T).float()


def contenders(x: Tensor) -> dict[str, Callable[[], Tensor]]:
    def torchs() -> Tensor:
        return torch.stack([_zeropower_via_newtonschulz(matrix, STEP, STEPS, EPS) for matrix in x])

    def of(way: str) -> Callable[[], Tensor]:
        out = torch.empty_like(x)
        return lambda: orthogonalize(x, [STEP] * STEPS, eps=EPS, way=way, out=out)

    return {"torch": torchs} | {way: of(way) for way in WAYS}


def errors(x: Tensor) -> dict[str, float]:
    exact = orthogonalize(x.double(), [STEP] * STEPS, eps=EPS, way="float32")
    return {name: float((run().double() - exact).norm() / exact.norm()) for name, run in contenders(x).items()}


def times(x: Tensor, rounds: int, clock: Callable[[], float]) -> Times:
    runs = contenders(x)
    taken: Times = {name: [] for name in runs}
    for k in range(rounds + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if k:  # the first round warms up
                taken[name].append(clock() - start)
    return taken


def ratio(taken: Times, way: str) -> float:
    return statistics.median(a / b for a, b in zip(taken["torch"], taken[way], strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=SHAPES.split(), help="stacks, COUNTxROWSxCOLUMNS")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    rows: list[list[str]] = []
    theirs = ours = 0.0
    for shape in arguments.shapes:
        n, height, width = map(int, shape.split("x"))
        taken = times(torch.randn(n, height, width), arguments.rounds, CLOCKS[arguments.clock])
        error = errors(of_wide_spectrum(height, width)[None])
        chosen = way_of(n, height, width, torch.float32, "cpu", processor())
        cells = [f"{ratio(taken, way):.2f}x, {error[way]:.0e}" for way in WAYS]
        rows.append([shape, f"{statistics.median(taken['torch']) * 1e3:.1f} ms, {error['torch']:.0e}", *cells, chosen])
        theirs += GPT2.get((height, width), 0) * statistics.median(taken["torch"]) / n
        ours += GPT2.get((height, width), 0) * statistics.median(taken[chosen]) / n
    header = ["stack", "torch", *WAYS, "chosen"]
    if arguments.markdown:
        print("\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows]))
    else:
        table = Table(*header, title=f"{arguments.threads} threads, {arguments.clock} time, processor {processor()!r}")
        for row in rows:
            table.add_row(*row)
        Console().print(table)
    if ours:
        print(f"The hidden matrices of GPT-2 small among these, by the chosen ways: {theirs / ours:.2f}x.")


if __name__ == "__main__":
    main()
