"""What a step of a rule takes beside the packages that have it: float32, large tensors, turns one after another.

    benchmarks/agreement.sh --speed                        # a temporary environment with the packages, then this
    python benchmarks/rule_speed.py --threads 2 --rule prodigy

Sixteen tensors of 1024×1024, each contender with weights, gradients and states of its own. What is shown is the median
time of a step, and the median over rounds of its share of the time of the first in the same round: neon, where it has
the rule. Beside neon stands its share of the memory limit: the bytes that its passes move, by what scaling memory in
place moves in the same time. Schedule-Free's package writes into the gradients: they are set again before each step,
outside the clock.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numba
import torch
from agreement_cases import ADAFACTOR, ADAMW, AROUND_SGD, FREE, LAMB, PRODIGY, WORDS, Case
from rich.console import Console
from rich.table import Table

from neon.commands.bench.timing import Contender, interleaved
from neon.engine import use_backend

# The packages' ways to make a step, what a class's own default is first; the bytes an element that neon's passes move.
WAYS: list[tuple[Case, dict[str, dict[str, Any]], int]] = [
    (ADAMW, {"loop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}, 28),
    (ADAFACTOR, {"loop": {"foreach": False}, "foreach": {"foreach": True}}, 24),
    (LAMB, {"foreach": {"foreach": True}, "loop": {"foreach": False}}, 40),
    (PRODIGY, {"loop": {}}, 48),
    (FREE, {"foreach": {"foreach": True}, "loop": {"foreach": False}}, 28),
    (AROUND_SGD, {"around SGD": {}}, 20),
]
LIMIT = "scaling in place"


def contender(make: Callable[[list[Any]], torch.optim.Optimizer], count: int, side: int) -> Contender:
    """Weights with gradients, and a step over them."""
    generator = torch.Generator().manual_seed(3)
    first = [torch.randn(side, side, generator=generator) for _ in range(2)]
    params = [torch.nn.Parameter(first[0].clone()) for _ in range(count)]
    for p in params:
        p.grad = first[1].clone()
    optimizer = make([{"params": params}])
    if hasattr(optimizer, "train"):
        optimizer.train()

    def prepare() -> None:
        for p in params:
            p.grad.copy_(first[1])  # type: ignore[union-attr]

    return Contender(optimizer.step, prepare)


def contenders(case: Case, ways: dict[str, dict[str, Any]], count: int, side: int) -> dict[str, Contender]:
    """neon's, where it has the rule, and each of the package's."""
    found: dict[str, Contender] = {}
    made = case.neons()
    if made is not None:
        found["neon"] = contender(made.attach, count, side)
    words = WORDS[case.rule](case.numbers)
    for way, options in ways.items():
        make: Callable[..., Any] = partial(case.make, numbers=words)
        if case.rule == "AdamW":
            make = partial(torch.optim.AdamW, **words)
        found[f"{case.package}, {way}"] = contender(partial(make, **options), count, side)
    return found


def measure(case: Case, ways: dict[str, dict[str, Any]], moved: int, given: argparse.Namespace, table: Table) -> None:
    memory = torch.ones(given.tensors, 4, given.side, given.side)
    limit = {LIMIT: Contender(partial(memory.mul_, 1.0))}
    with use_backend("numba"):
        turns, _ = interleaved({**contenders(case, ways, given.tensors, given.side), **limit}, given.rounds)
    first = [turn.seconds for turn in next(iter(turns.values()))]
    limits = [moved / (2 * memory.element_size() * 4) * turn.seconds for turn in turns.pop(LIMIT)]
    of_limit = statistics.median(at / taken for at, taken in zip(limits, first, strict=True))
    for name, taken in turns.items():
        seconds = [turn.seconds for turn in taken]
        share = statistics.median(a / b for a, b in zip(seconds, first, strict=True))
        known = "" if name == "neon" else version(case.package)
        reached = f"{of_limit:.2f}" if name == "neon" else ""
        table.add_row(case.rule, name, known, f"{1e3 * statistics.median(seconds):.1f}", f"{share:.2f}", reached)


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    numba.set_num_threads(given.threads)
    table = Table(title=f"{given.tensors} tensors of {given.side}×{given.side}, {given.threads} thread(s)")
    for heading in ("rule", "who", "version"):
        table.add_column(heading)
    for heading in ("ms a step", "of the first", "of the limit"):
        table.add_column(heading, justify="right")
    for case, ways, moved in WAYS:
        if given.rule.lower() in case.rule.lower():
            measure(case, ways, moved, given, table)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", default="", help="a part of the rule's name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tensors", type=int, default=16)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15)
    main(parser.parse_args())
