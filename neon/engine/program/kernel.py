"""A kernel: a program for given storage formats, split into stages at its reductions.

Backends print or execute kernels; nothing here depends on which.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch

from neon.engine.program.formats.blocks import BLOCK_OF_ELEMENTS
from neon.engine.program.graph import CALL, FLOAT, LOADS, SIZE, Called, Node, walk
from neon.engine.program.printer import listing
from neon.engine.program.scalars import HostProgram
from neon.engine.program.slots import Formats, Slot
from neon.engine.program.spaces import ELEMENT, STEP, Space
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
    `seen` is computed for the sums of an observed kernel.
    """

    loads: tuple[Node, ...]
    values: tuple[Node, ...] = ()
    stores: dict[str, Node] = field(default_factory=dict)
    of_block: dict[str, Node] = field(default_factory=dict)
    given: tuple[Node, ...] = ()
    seen: tuple[Node, ...] = ()


@dataclass(frozen=True, eq=False)
class Narrow:
    """One loop over the rows, the columns or the matrices of each tensor.

    It keeps `values` beside the tensor, takes `reductions` of values, kept there too, or writes `stores`.
    """

    of: Space
    values: tuple[Node, ...] = ()
    reductions: tuple[Node, ...] = ()
    stores: dict[str, Node] = field(default_factory=dict)

    @property
    def roots(self) -> tuple[Node, ...]:
        """What it computes for each row, column or matrix."""
        return (*self.values, *(operand for r in self.reductions for operand in r.args), *self.stores.values())


@dataclass(frozen=True, eq=False)
class Calls:
    """What torch makes of whole matrices between two passes over elements.

    It gives buffers new contents, and states of pairs new values; `values` are what later calls need of pairs.
    """

    buffers: dict[str, Node]
    stores: dict[str, Node] = field(default_factory=dict)
    values: tuple[Node, ...] = ()

    @property
    def roots(self) -> tuple[Node, ...]:
        """What is computed."""
        return (*self.buffers.values(), *self.stores.values(), *self.values)


@dataclass(frozen=True, eq=False)
class Stage:
    """One pass over memory: reductions whose results a later stage needs, or stores.

    Those of one level are taken together, in all kernels of a step: their sums reach over these. Sums `along` rows and
    columns stay beside their tensor. A stage that has `narrow` loops, and no level, works on what is there, before
    the pass over elements that follows it. One that has `calls` is no pass at all. From the first of these on, and from
    the first sums along rows and columns on that no wider sum follows, sums are of single tensors and have no level.

    `scalars` are the host's numbers that the pass reads, in the order of their columns. `sweeps` are its loops where
    elements are worked on one by one; where many are worked on at once, all values are computed before the first store.
    `seen` are sums over each tensor that are left for whoever looks, and that no stage reads.
    """

    reductions: tuple[Node, ...]
    stores: dict[str, Node]
    scalars: tuple[Node, ...]
    sweeps: tuple[Sweep, ...]
    level: int | None = None
    along: tuple[Node, ...] = ()
    narrow: tuple[Narrow, ...] = ()
    calls: Calls | None = None
    seen: tuple[Node, ...] = ()

    @cached_property
    def host(self) -> HostProgram:
        """What computes its numbers."""
        return HostProgram(self.scalars)

    @property
    def roots(self) -> tuple[Node, ...]:
        """What the pass computes for each element, or for each row, column or matrix."""
        reduced = (operand for r in (*self.reductions, *self.along, *self.seen) for operand in r.args)
        calls = () if self.calls is None else self.calls.roots
        return (*reduced, *self.stores.values(), *calls, *(root for loop in self.narrow for root in loop.roots))

    @property
    def loads(self) -> tuple[Node, ...]:
        """What the pass reads from tensors."""
        return loads_of(self.roots)

    @property
    def peaks(self) -> tuple[Node, ...]:
        """The largest values of blocks, on which what is stored depends."""
        return peaks_of(self.stores.values())

    def body(self) -> list[Node]:
        """What is computed for each element, in order: nodes that vary, and conditions on numbers."""
        return body_of(self.roots)

    @cached_property
    def random(self) -> bool:
        """Whether it draws random bits."""
        return any(node.op == "step_word" for node in walk(self.roots))

    @property
    def reduces(self) -> bool:
        """Whether a later stage needs sums of its elements."""
        return bool(self.reductions or self.along)

    @property
    def is_pass(self) -> bool:
        """Whether it goes over elements."""
        return not self.narrow and self.calls is None

    @cached_property
    def given(self) -> tuple[Node, ...]:
        """What a pass over elements reads of what is kept for rows, columns and matrices."""
        return given_of(self.roots) if self.is_pass else ()


class Observed(NamedTuple):
    """What the last stage of a kernel sums that nothing reads, by name, and which of its scalars are of interest."""

    sums: Mapping[str, Node]
    numbers: Mapping[str, Node]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A program lowered to formats: its stages, and what backends have made of it.

    `numbers` are the new values of the numbers that persist; `wide_sums` orders its reductions over an optimizer.
    `buffers` names the tensors beside each one, in the precision of the arithmetic, that calls work on within a step.
    `beside` names what is kept beside each tensor within a step: sums along its rows and columns, in float64, and what
    is computed of them.
    """

    program: Program
    formats: Formats
    slots: tuple[Slot, ...]
    stages: tuple[Stage, ...]
    guard: Node | None = None
    numbers: dict[str, Node] = field(default_factory=dict)
    wide_sums: dict[Node, int] = field(default_factory=dict)
    beside: dict[str, Node] = field(default_factory=dict)
    buffers: tuple[str, ...] = ()
    executables: dict[str, Any] = field(default_factory=dict, repr=False)
    observed: Observed | None = None

    @cached_property
    def new_numbers(self) -> HostProgram:
        """What computes the numbers that persist."""
        return HostProgram([*self.numbers.values()])

    @cached_property
    def called(self) -> set[Called]:
        """The functions of matrices that it calls."""
        roots = [root for stage in self.stages if stage.calls is not None for root in stage.calls.roots]
        return {node.label for node in walk(roots) if node.op == CALL}

    @cached_property
    def reducing(self) -> dict[int, int]:
        """The places of its stages that reduce, by their levels."""
        return {stage.level: place for place, stage in enumerate(self.stages) if stage.level is not None}

    @cached_property
    def random(self) -> bool:
        """Whether it draws random bits, for which it has to know the step."""
        return any(stage.random for stage in self.stages)

    @cached_property
    def in_one_go(self) -> bool:
        """Whether it waits for no other kernel from where on something is kept beside tensors until these are done."""
        first = next((place for place, stage in enumerate(self.stages) if stage.along or stage.narrow), None)
        return first is not None and all(stage.level is None for stage in self.stages[first:])

    @cached_property
    def sums_alone(self) -> bool:
        """Whether a stage without a level takes sums of tensors."""
        return any(stage.level is None and stage.reductions for stage in self.stages)

    @property
    def by_rows(self) -> bool:
        """Whether it works on tensors row by row, so that what is known of a row or a column is at hand."""
        return bool(self.beside) or self.program.by_rows

    @property
    def width(self) -> int:
        """How many numbers the table of addresses has of a tensor: last its key, the step, and where a shard begins."""
        return len(self.tensors) + (len(self.beside) + 4 if self.by_rows else 0) + 3

    @cached_property
    def name_of(self) -> dict[Node, str]:
        """The names of what is kept beside each tensor."""
        return {node: name for name, node in self.beside.items()}

    @cached_property
    def names(self) -> dict[Node, str]:
        """What goes by a name in the text of a kernel: its sums, and what is kept beside tensors."""
        sums = [reduction for stage in self.stages for reduction in stage.reductions]
        return self.name_of | {reduction: f"sum{number}" for number, reduction in enumerate(sums)}

    def before(self, place: int) -> Iterable[int]:
        """The places of the stages, all of them without a level, that belong before one that has one or is the last."""
        first = place
        while first and self.stages[first - 1].level is None:
            first -= 1
        return range(first, place)

    def kept_before(self, place: int) -> list[Node]:
        """What is beside each tensor before a stage."""
        before = self.stages[:place]
        loops = [node for stage in before for loop in stage.narrow for node in (*loop.values, *loop.reductions)]
        return [*loops, *(node for stage in before for node in stage.along)]

    def graph(self) -> str:
        """All stages as a person reads them."""
        return "\n\n".join(listing(self._outputs(stage), self.names) for stage in self.stages)

    def _outputs(self, stage: Stage) -> dict[str, Node]:
        if stage.calls is not None:
            return stage.calls.buffers | stage.calls.stores
        loops = {self.name_of[node]: node for loop in stage.narrow for node in (*loop.values, *loop.reductions)}
        stored = {name: root for loop in stage.narrow for name, root in loop.stores.items()}
        sums = {self.names[r]: r for r in stage.reductions}
        numbers = self.numbers if stage is self.stages[-1] else {}
        return {self.name_of[node]: node for node in stage.along} | loops | stored | sums | stage.stores | numbers

    @cached_property
    def bytes_moved(self) -> int:
        """How many bytes its passes read and write for each element: a lower bound of what a step takes."""
        sizes = {name: dtype.itemsize for name, dtype in self.tensors.items()}
        passes = [stage for stage in self.stages if stage.is_pass]
        read = [load.label for stage in passes for load in stage.loads if load.space is ELEMENT]
        return sum(map(sizes.__getitem__, [*read, *(name for stage in passes for name in stage.stores)]))

    @cached_property
    def given(self) -> dict[str, torch.dtype]:
        """The weight, the gradient and what is kept of a parameter, in the order of their addresses."""
        return {"w": self.formats.w, "g": self.formats.g} | {slot.name: slot.dtype for slot in self.slots}

    @cached_property
    def tensors(self) -> dict[str, torch.dtype]:
        """All tensors that it works on, in the order of their addresses: the buffers of calls behind what is given."""
        return self.given | dict.fromkeys(self.buffers, self.formats.compute)

    @cached_property
    def scales(self) -> tuple[str, ...]:
        """The tensors with one number for each block of a state."""
        return tuple(slot.name for slot in self.slots if slot.space is BLOCK_OF_ELEMENTS)

    @property
    def name(self) -> str:
        """A readable name, also of the file of generated source."""
        worked_on = (dtype for name, dtype in self.given.items() if name not in self.program.own_numbers)
        kinds = dict.fromkeys(str(dtype).removeprefix("torch.") for dtype in worked_on)
        return "_".join((self.program.name.strip("<>"), *kinds))


class _Kept:
    """What a pass over elements finds computed: numbers of rows, columns, matrices and tensors, but for sizes."""

    def __contains__(self, node: object) -> bool:
        return isinstance(node, Node) and node.space.is_narrow and node.kind == FLOAT and node.op != SIZE


_KEPT = _Kept()


def body_of(roots: Iterable[Node], given: Container[Node] = _KEPT) -> list[Node]:
    below = walk(roots, into_reductions=False, given=given)
    return [n for n in below if (n.space is not STEP or n.kind == "bool") and n not in given]


def numbers_of(roots: Collection[Node], given: Container[Node] = _KEPT) -> tuple[Node, ...]:
    """The host's numbers that these values are computed from."""
    numbers: dict[Node, None] = {}
    for node in body_of(roots, given):
        numbers |= {a: None for a in node.args if a.space is STEP and a.kind == FLOAT and a.op != "const"}
    numbers |= {root: None for root in roots if root.space is STEP and root.op != "const"}
    return tuple(numbers)


def given_of(roots: Iterable[Node]) -> tuple[Node, ...]:
    return tuple(n for n in walk(roots, into_reductions=False, given=_KEPT) if n in _KEPT)


def loads_of(roots: Iterable[Node], given: Collection[Node] = ()) -> tuple[Node, ...]:
    below = walk(roots, into_reductions=False, given=given or _KEPT)
    return tuple(n for n in below if n.op in LOADS and n.varies and n not in given)


def peaks_of(roots: Iterable[Node]) -> tuple[Node, ...]:
    return tuple(n for n in walk(roots, into_reductions=False) if n.op == "block_peak")
