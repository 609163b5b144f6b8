"""A kernel: a program for given storage formats, split into stages at its reductions.

Backends print or execute kernels; nothing here depends on which.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from neon.engine.program import graph
from neon.engine.program.formats import floats as codecs
from neon.engine.program.formats.blocks import BLOCK_CODECS, scale_name
from neon.engine.program.graph import LOADS, REDUCTION, Node, walk
from neon.engine.program.random_bits import dither_bits, random_bits
from neon.engine.program.scalars import HostProgram
from neon.engine.program.trace import Program
from neon.engine.program.verify import verify

# Elements that one reduction partial, and one unit of work for a thread, cover.
CHUNK = 65536
# A row is this many elements, each summed in a lane of its own: few enough that registers hold the lanes.
LANES = 64
# Rows are summed in blocks of this many, the blocks of a chunk one after another, its lanes then pairwise.
ROWS = 32


@dataclass(frozen=True)
class Formats:
    """How the tensors of a kernel are kept: weight, gradient, states, and the rounding of the weight.

    `width` is the mantissa width that weights are rounded to at random, 0 for the format's own, None
    for rounding to nearest. States of less than 32 bits are always rounded at random. `split` says that
    a bfloat16 weight has its other 16 bits in a companion.
    """

    w: torch.dtype
    g: torch.dtype
    states: tuple[torch.dtype, ...]
    width: int | None = None
    split: bool = False

    @property
    def compute(self) -> torch.dtype:
        """Arithmetic is float32, and float64 for float64 parameters."""
        return torch.float64 if self.w == torch.float64 else torch.float32


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
    """One pass over memory: reductions whose results the next stage needs, or the final stores.

    `scalars` are the host's numbers that the pass reads, in the order of their columns. `sweeps` are its loops where
    elements are worked on one by one; where many are worked on at once, all values are computed before the first store.
    """

    reductions: tuple[Node, ...]
    stores: dict[str, Node]
    scalars: tuple[Node, ...]
    sweeps: tuple[Sweep, ...]

    @cached_property
    def host(self) -> HostProgram:
        """What computes its numbers."""
        return HostProgram(self.scalars)

    @property
    def roots(self) -> tuple[Node, ...]:
        """What the pass computes for each element."""
        return (*(r.args[0] for r in self.reductions), *self.stores.values())

    @property
    def loads(self) -> tuple[Node, ...]:
        """What the pass reads from tensors."""
        return _loads(self.roots)

    @property
    def peaks(self) -> tuple[Node, ...]:
        """The largest values of blocks, on which what is stored depends."""
        return _peaks(self.stores.values())

    def outputs(self) -> dict[str, Node]:
        """What results from the pass, by name."""
        return {f"reduction[{i}]": r for i, r in enumerate(self.reductions)} | self.stores

    def body(self) -> list[Node]:
        """What is computed for each element, in order: nodes that vary, and conditions on numbers."""
        return _body(self.roots)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A program lowered to formats: its tensors in order, its stages, and what backends have made of it."""

    program: Program
    formats: Formats
    tensors: dict[str, torch.dtype]
    stages: tuple[Stage, ...]
    guard: Node | None = None
    executables: dict[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def random(self) -> bool:
        """Whether it draws random bits, for which it has to know the step."""
        return any(node.op == "step_word" for node in walk(self.stages[-1].roots))

    @property
    def scales(self) -> tuple[str, ...]:
        """The tensors with one number for each block of a state."""
        return (*_scales(self.program, self.formats),)

    @property
    def name(self) -> str:
        """A readable name, also of the file of generated source."""
        kinds = dict.fromkeys(str(d).removeprefix("torch.") for d in self.tensors.values())
        return "_".join((self.program.name.strip("<>"), *kinds))


def lower(program: Program, formats: Formats) -> Kernel:
    """The kernel of a program in these formats, made once."""
    found = program.kernels.get(formats)
    return found if found is not None else program.kernels.setdefault(formats, _lower(program, formats))


def _lower(program: Program, formats: Formats) -> Kernel:
    """Put the codecs at the edges of a program and split it into stages."""
    elements = {"w": formats.w, "g": formats.g, **dict(zip(program.states, formats.states, strict=True))}
    decoded = {graph.load(name): _decode(name, dtype) for name, dtype in elements.items()}
    if formats.split:
        decoded[graph.load("w")] = codecs.decode_split()
    values = dict(zip(program.outputs, _replace(list(program.outputs.values()), decoded), strict=True))
    stores: dict[str, Node] = {}
    for name, value in values.items():
        stores |= _encode(name, value, elements[name], formats, [*elements].index(name) - 1)
    tensors = elements | companions(program, formats)
    guard = None if program.guard is None else _replace([program.guard], decoded)[0]
    stages = _stages(stores, guard, _scales(program, formats))
    kernel = Kernel(program, formats, tensors, stages, guard)
    verify(kernel)
    return kernel


def companions(program: Program, formats: Formats) -> dict[str, torch.dtype]:
    """The tensors beside the weight, the gradient and the states that the formats need."""
    low_bits = {codecs.LOW_BITS: torch.bfloat16} if formats.split else {}
    return dict.fromkeys(_scales(program, formats), torch.float32) | low_bits


def _scales(program: Program, formats: Formats) -> list[str]:
    states = zip(program.states, formats.states, strict=True)
    return [scale_name(name) for name, dtype in states if dtype in BLOCK_CODECS]


def _decode(name: str, dtype: torch.dtype) -> Node:
    return BLOCK_CODECS[dtype].decode(name) if dtype in BLOCK_CODECS else codecs.decode(name, dtype)


def _encode(name: str, value: Node, dtype: torch.dtype, formats: Formats, stream: int) -> dict[str, Node]:
    """What is stored for a new value, by the name of the tensor."""
    if name == "w" and formats.split:
        return dict(zip(("w", codecs.LOW_BITS), codecs.encode_split(value), strict=True))
    if name == "w":
        random = None if formats.width is None else random_bits()
        return {name: codecs.encode(value, dtype, formats.width or None, random)}
    # A mean of squares moves by a thousandth of itself: to nearest, it would stand still.
    random = dither_bits(stream)
    if dtype in BLOCK_CODECS:
        return dict(zip((name, scale_name(name)), BLOCK_CODECS[dtype].encode(value, random), strict=True))
    return {name: codecs.encode(value, dtype, None, random)}


def _replace(roots: Sequence[Node], mapping: dict[Node, Node]) -> list[Node]:
    """The same graphs with some leaves replaced."""
    new = dict(mapping)
    for node in walk(roots):
        if node not in new:
            args = tuple(new[a] for a in node.args)
            new[node] = node if args == node.args else graph.node(node.op, args, node.label, node.kind)
    return [new[root] for root in roots]


def _stages(stores: dict[str, Node], guard: Node | None, scales: Collection[str]) -> tuple[Stage, ...]:
    """Reductions of the same depth share a pass; the stores are the last one."""
    depth: dict[Node, int] = {}
    for node in walk([*([] if guard is None else [guard]), *stores.values()]):
        depth[node] = max((depth[a] for a in node.args), default=0) + (node.op == REDUCTION)
    levels = sorted({depth[n] for n in depth if n.op == REDUCTION})
    passes = [tuple(n for n in depth if n.op == REDUCTION and depth[n] == level) for level in levels]
    reducing = [
        Stage(reductions, {}, _numbers(arguments), tuple(Sweep(_loads([a]), (a,)) for a in arguments))
        for reductions in passes
        for arguments in [[reduction.args[0] for reduction in reductions]]
    ]
    return (*reducing, Stage((), stores, _numbers(stores.values()), _sweeps(stores, scales)))


def _sweeps(stores: dict[str, Node], scales: Collection[str]) -> tuple[Sweep, ...]:
    """What does not depend on a block's peaks first, with the values that have these peaks; then the rest."""
    peaks = _peaks(stores.values())
    if not peaks:
        return (Sweep(_loads(stores.values()), (), stores),)
    values = tuple(dict.fromkeys(peak.args[0] for peak in peaks))
    late = {name: root for name, root in stores.items() if _peaks([root])}
    early = {name: root for name, root in stores.items() if name not in late}
    given = (*values, *peaks)
    codes = {name: root for name, root in late.items() if name not in scales}
    of_block = {name: root for name, root in late.items() if name in scales}
    first = Sweep(_loads([*early.values(), *values]), values, early)
    return (first, Sweep(_loads(late.values(), given), (), codes, of_block, given))


def _body(roots: Iterable[Node]) -> list[Node]:
    return [n for n in walk(roots, into_reductions=False) if n.varies or n.kind == "bool"]


def _loads(roots: Iterable[Node], given: Collection[Node] = ()) -> tuple[Node, ...]:
    below = walk(roots, into_reductions=False, given=given)
    return tuple(n for n in below if n.op in LOADS and n not in given)


def _peaks(roots: Iterable[Node]) -> tuple[Node, ...]:
    return tuple(n for n in walk(roots, into_reductions=False) if n.op == "block_peak")


def _numbers(roots: Collection[Node]) -> tuple[Node, ...]:
    """The host's numbers that these values are computed from."""
    numbers: dict[Node, None] = {}
    for node in _body(roots):
        numbers |= {a: None for a in node.args if not a.varies and a.kind == "float" and a.op != "const"}
    numbers |= {root: None for root in roots if not root.varies and root.op != "const"}
    return tuple(numbers)
