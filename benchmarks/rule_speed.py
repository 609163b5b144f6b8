"""What a step of a rule takes beside the packages that have it: float32, large tensors, turns one after another.

    benchmarks/agreement.sh --speed                        # a temporary environment with the packages, then this
    python benchmarks/rule_speed.py --threads 2 --rule prodigy

Sixteen tensors of 1024×1024, each contender with weights, gradients and states of its own. What is shown is the median
time of a step, and the median over rounds of its share of the time of neon's in the same round. neon's has its share of
the memory limit: the bytes that its passes move, by what scaling memory in place moves in the same time. Some packages
write into the gradients: they are set again before each step, outside the clock.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numba
import torch
from agreement_cases import ADAMW, WORDS, Case, Numbers, all_cases
from rich.console import Console
from rich.table import Table
from rules import kernel_of

from neon.commands.bench.timing import Contender, interleaved
from neon.engine import use_backend

# The rows of agreement.py that are timed: a package's loop, and its other way, where it has one.
WAYS = {"defaults": "loop", "foreach": "foreach", "fused": "fused"}
LIMIT = "scaling in place"


def timed() -> dict[str, list[Case]]:
    """The cases of each rule."""
    found: dict[str, list[Case]] = {}
    for case in [*all_cases(), replace(ADAMW, name="fused", make=partial(fused, of=torch.optim.AdamW))]:
        if case.name in WAYS and case.zeros is False:
            found.setdefault(case.rule, []).append(case)
    return found


def fused(groups: list[Any], numbers: Numbers, *, of: Any) -> Any:
    return of(groups, **numbers, fused=True)


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


def contenders(cases: list[Case], count: int, side: int) -> dict[str, Contender]:
    """neon's, and each way of each package."""
    found = {"neon": contender(cases[0].neons().attach, count, side)}
    for case in cases:
        make = partial(case.make, numbers=WORDS[case.rule](case.numbers))
        found[f"{case.package} {version(case.package)}, {WAYS[case.name]}"] = contender(make, count, side)
    return found


def measure(cases: list[Case], given: argparse.Namespace, table: Table) -> None:
    memory, moved = torch.ones(given.tensors, 4, given.side, given.side), kernel_of(cases[0].neons()).bytes_moved
    limit = {LIMIT: Contender(partial(memory.mul_, 1.0))}
    with use_backend("numba"):
        turns, _ = interleaved({**contenders(cases, given.tensors, given.side), **limit}, given.rounds)
    first = [turn.seconds for turn in turns["neon"]]
    limits = [moved / (2 * memory.element_size() * 4) * turn.seconds for turn in turns.pop(LIMIT)]
    of_limit = statistics.median(at / taken for at, taken in zip(limits, first, strict=True))
    for name, taken in turns.items():
        seconds = [turn.seconds for turn in taken]
        share = statistics.median(a / b for a, b in zip(seconds, first, strict=True))
        reached = f"{of_limit:.2f}" if name == "neon" else ""
        table.add_row(cases[0].rule, name, f"{1e3 * statistics.median(seconds):.1f}", f"{share:.2f}", reached)


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    numba.set_num_threads(given.threads)
    table = Table(title=f"{given.tensors} tensors of {given.side}×{given.side}, {given.threads} thread(s)")
    for heading in ("rule", "who"):
        table.add_column(heading)
    for heading in ("ms a step", "of the first", "of the limit"):
        table.add_column(heading, justify="right")
    for rule, cases in timed().items():
        if given.rule.lower() in rule.lower():
            measure(cases, given, table)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", default="", help="a part of the rule's name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tensors", type=int, default=16)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15)
    main(parser.parse_args())
