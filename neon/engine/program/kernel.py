"""A kernel: a program for given storage formats, split into stages at its reductions.

Backends print or execute kernels; nothing here depends on which.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from neon.engine.program.formats.blocks import BLOCK_OF_ELEMENTS
from neon.engine.program.graph import LOADS, Node, walk
from neon.engine.program.scalars import HostProgram
from neon.engine.program.slots import Formats, Slot
from neon.engine.program.trace import Program

# Elements that one reduction partial, and one unit of work for a thread, cover.
CHUNK = 65536
# A row is this many elements, each summed in a lane of its own: few enough that registers hold the lanes.
LANES = 64
# Rows are summed in blocks of this many, the blocks of a chunk one after another, its lanes then pairwise.
ROWS = 32


@dataclass(frozen=True, eq=False)
class Sweep:
    """One loop over elements: of each it reads `loads`, computes `values` and then writes `stores`.

    Where states are in blocks, the loop is over a block: what it reads for the whole block is read before its first
    sweep, a later sweep is `given` the values of the earlier ones and their peaks, and `of_block` is written after it.
    """

    loads: tuple[Node, ...]
    values: tuple[Node, ...] = ()
    stores: dict[str, Node] = field(default_factory=dict)
    of_block: dict[str, Node] = field(default_factory=dict)
    given: tuple[Node, ...] = ()


@dataclass(frozen=True, eq=False)
class Stage:
    """One pass over memory: reductions whose results a later stage needs, or the final stores.

    Those of one level are taken together, in all kernels of a step: their sums reach over these.

    `scalars` are the host's numbers that the pass reads, in the order of their columns. `sweeps` are its loops where
    elements are worked on one by one; where many are worked on at once, all values are computed before the first store.
    """

    reductions: tuple[Node, ...]
    stores: dict[str, Node]
    scalars: tuple[Node, ...]
    sweeps: tuple[Sweep, ...]
    level: int | None = None

    @cached_property
    def host(self) -> HostProgram:
        """What computes its numbers."""
        return HostProgram(self.scalars)

    @property
    def roots(self) -> tuple[Node, ...]:
        """What the pass computes for each element."""
        return (*(operand for r in self.reductions for operand in r.args), *self.stores.values())

    @property
    def loads(self) -> tuple[Node, ...]:
        """What the pass reads from tensors."""
        return loads_of(self.roots)

    @property
    def peaks(self) -> tuple[Node, ...]:
        """The largest values of blocks, on which what is stored depends."""
        return peaks_of(self.stores.values())

    def outputs(self) -> dict[str, Node]:
        """What results from the pass, by name."""
        return {f"reduction[{i}]": r for i, r in enumerate(self.reductions)} | self.stores

    def body(self) -> list[Node]:
        """What is computed for each element, in order: nodes that vary, and conditions on numbers."""
        return body_of(self.roots)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A program lowered to formats: its stages, and what backends have made of it.

    `numbers` are the new values of the numbers that persist; `wide_sums` orders its reductions over an optimizer.
    """

    program: Program
    formats: Formats
    slots: tuple[Slot, ...]
    stages: tuple[Stage, ...]
    guard: Node | None = None
    numbers: dict[str, Node] = field(default_factory=dict)
    wide_sums: dict[Node, int] = field(default_factory=dict)
    executables: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def new_numbers(self) -> HostProgram:
        """What computes the numbers that persist."""
        return HostProgram([*self.numbers.values()])

    @property
    def reducing(self) -> dict[int, int]:
        """The places of its stages that reduce, by their levels."""
        return {stage.level: place for place, stage in enumerate(self.stages) if stage.level is not None}

    @cached_property
    def random(self) -> bool:
        """Whether it draws random bits, for which it has to know the step."""
        return any(node.op == "step_word" for node in walk(self.stages[-1].roots))

    @cached_property
    def tensors(self) -> dict[str, torch.dtype]:
        """Its tensors in the order of their addresses."""
        return {"w": self.formats.w, "g": self.formats.g} | {slot.name: slot.dtype for slot in self.slots}

    @cached_property
    def scales(self) -> tuple[str, ...]:
        """The tensors with one number for each block of a state."""
        return tuple(slot.name for slot in self.slots if slot.space is BLOCK_OF_ELEMENTS)

    @property
    def name(self) -> str:
        """A readable name, also of the file of generated source."""
        kinds = dict.fromkeys(str(d).removeprefix("torch.") for d in self.tensors.values())
        return "_".join((self.program.name.strip("<>"), *kinds))


def body_of(roots: Iterable[Node]) -> list[Node]:
    return [n for n in walk(roots, into_reductions=False) if n.varies or n.kind == "bool"]


def loads_of(roots: Iterable[Node], given: Collection[Node] = ()) -> tuple[Node, ...]:
    below = walk(roots, into_reductions=False, given=given)
    return tuple(n for n in below if n.op in LOADS and n not in given)


def peaks_of(roots: Iterable[Node]) -> tuple[Node, ...]:
    return tuple(n for n in walk(roots, into_reductions=False) if n.op == "block_peak")
