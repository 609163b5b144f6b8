"""The verifier of kernels: what breaks the specification is found, and what is printed follows the sweeps."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from neon.engine.backends import numba
from neon.engine.program.graph import apply, load, node, scalar
from neon.engine.program.kernel import Kernel, Stage, Sweep
from neon.engine.program.lowering import lower
from neon.engine.program.options import Options
from neon.engine.program.reductions import reduce
from neon.engine.program.slots import Formats
from neon.engine.program.spaces import TENSOR
from neon.engine.program.trace import trace
from neon.engine.program.verify import KernelError, verify
from neon.optimizers.functions import norm


def swap(w, g, a=1.0, b=2.0, *, lr):  # type: ignore[no-untyped-def]
    """Every tensor is another's new value."""
    return w - lr * g / norm(a), b, w


def kernel_of(rule: Any, *states: torch.dtype, w: torch.dtype = torch.float32) -> Kernel:
    return lower(trace(rule, {"lr": 0.1}, Options()), Formats(w, w, states))


PLAIN = kernel_of(swap, torch.float32, torch.float32)
BLOCKS = kernel_of(swap, torch.float32, torch.int8)


def with_stage(kernel: Kernel, number: int, **changes: Any) -> Kernel:
    stages = list(kernel.stages)
    stages[number] = replace(stages[number], **changes)
    return replace(kernel, stages=tuple(stages))


def with_store(name: str, root: Any, kernel: Kernel = PLAIN) -> Kernel:
    """A kernel of one sweep that stores something else."""
    stores = kernel.stages[-1].stores | {name: root}
    sweep = Sweep(Stage((), stores, (), ()).loads, (), stores)
    return with_stage(kernel, -1, stores=stores, sweeps=(sweep,))


def loads_late(kernel: Kernel) -> Kernel:
    first, second = kernel.stages[-1].sweeps
    peaks = kernel.stages[-1].peaks
    # As if the value that is kept were read from its tensor again, which the first sweep has changed.
    late = replace(second, loads=(*second.loads, load("w")), given=peaks)
    return with_stage(kernel, -1, sweeps=(replace(first, stores={"w": load("w")}), late))


BROKEN: dict[str, tuple[Callable[[], Kernel], str]] = {
    "an undeclared load": (lambda: replace(PLAIN, slots=()), "all that is loaded is declared"),
    "a load of words as a number": (
        lambda: replace(PLAIN, formats=replace(PLAIN.formats, w=torch.bfloat16)),
        "is loaded by",
    ),
    "a stored gradient": (lambda: with_store("g", load("w")), "what is stored is a weight or a state"),
    "a word in place of a number": (lambda: with_store("w", apply("bits", load("w"))), "w is stored as float"),
    "an unknown operation": (lambda: with_store("w", node("sin", (load("w"),))), "one of the table"),
    "a word among numbers": (
        lambda: with_store("w", node("add", (load("w"), apply("bits", load("w"))))),
        "add takes",
    ),
    "a number that nobody computes": (lambda: with_store("w", load("w") * scalar("other")), "computed by the host"),
    "a number that varies": (lambda: with_stage(PLAIN, -1, scalars=(load("w"),)), "numbers that do not vary"),
    "a sum used where it is taken": (
        lambda: with_stage(PLAIN, 0, scalars=(reduce("sum_of_squares", TENSOR, load("a")),)),
        "in a later stage",
    ),
    "a store that is left out": (lambda: with_stage(PLAIN, -1, sweeps=()), "each store is in one sweep"),
    "a load that is left out": (
        lambda: with_stage(PLAIN, -1, sweeps=(Sweep((), (), PLAIN.stages[-1].stores),)),
        "declares its loads",
    ),
    "a value that a store has changed": (lambda: loads_late(BLOCKS), "before a store that would change it"),
    "sweeps in the wrong order": (
        lambda: with_stage(BLOCKS, -1, sweeps=BLOCKS.stages[-1].sweeps[::-1]),
        "given what an earlier one has computed",
    ),
    "codes without a scale": (
        lambda: with_stage(BLOCKS, -1, stores={k: v for k, v in BLOCKS.stages[-1].stores.items() if k != "b_scale"}),
        "b is stored together with b_scale",
    ),
    "stores before the last stage": (lambda: replace(PLAIN, stages=PLAIN.stages[::-1]), "sum"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_breaks_the_specification_is_found(what: str) -> None:
    broken, message = BROKEN[what]
    with pytest.raises(KernelError, match=message):
        verify(broken())


FORMATS = [torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.uint8]


@pytest.mark.parametrize("b", FORMATS)
@pytest.mark.parametrize("a", FORMATS)
def test_numba_reads_nothing_that_it_has_written(a: torch.dtype, b: torch.dtype) -> None:
    """In the order of its text: of each loop all reads first, and none of what an earlier loop has stored."""
    for w in (torch.float32, torch.bfloat16):
        source = numba.source(kernel_of(swap, a, b, w=w))
        written: set[str] = set()
        for loop in source.split("def stage_1")[1].split("for i in range(")[1:]:
            read, stored = (list(re.finditer(p, loop)) for p in (r"= \w+\((\w+)_at\[i\]\)", r"(\w+)_at\[i\] ="))
            assert not written & {match[1] for match in read}
            assert not read or not stored or max(m.start() for m in read) < min(m.start() for m in stored)
            written |= {match[1] for match in stored}
        assert written == {"w", "a", "b"}
