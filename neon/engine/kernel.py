"""A kernel: a program for given storage formats, split into stages at its reductions.

Backends print or execute kernels; nothing here depends on which.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch

from neon.engine import codecs, graph
from neon.engine.blocks import BLOCK_CODECS, scale_name
from neon.engine.graph import REDUCTION, Node, walk
from neon.engine.random import dither_bits, random_bits
from neon.engine.trace import Program

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
class Stage:
    """One pass over memory: reductions whose results the next stage needs, or the final stores.

    `scalars` are the host's numbers that the pass reads, in the order of their columns.
    """

    reductions: tuple[Node, ...]
    stores: dict[str, Node]
    scalars: tuple[Node, ...]

    @property
    def roots(self) -> tuple[Node, ...]:
        """What the pass computes for each element."""
        return (*(r.args[0] for r in self.reductions), *self.stores.values())

    def outputs(self) -> dict[str, Node]:
        """What results from the pass, by name."""
        return {f"reduction[{i}]": r for i, r in enumerate(self.reductions)} | self.stores

    def body(self) -> list[Node]:
        """What is computed for each element, in order: nodes that vary, and conditions on numbers."""
        return [n for n in walk(self.roots, into_reductions=False) if n.varies or n.kind == "bool"]


@dataclass(frozen=True, eq=False)
class Kernel:
    """A program lowered to formats: its tensors in order, its stages."""

    program: Program
    formats: Formats
    tensors: dict[str, torch.dtype]
    stages: tuple[Stage, ...]
    guard: Node | None = None

    @cached_property
    def random(self) -> bool:
        """Whether it draws random bits, for which it has to know the step."""
        return any(node.op == "step_word" for node in walk(self.stages[-1].roots))

    @property
    def name(self) -> str:
        """A readable name, also of the file of generated source."""
        kinds = dict.fromkeys(str(d).removeprefix("torch.") for d in self.tensors.values())
        return "_".join((self.program.name.strip("<>"), *kinds))


@lru_cache(maxsize=1024)
def lower(program: Program, formats: Formats) -> Kernel:
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
    return Kernel(program, formats, tensors, _stages(stores, guard), guard)


def companions(program: Program, formats: Formats) -> dict[str, torch.dtype]:
    """The tensors beside the weight, the gradient and the states that the formats need."""
    blocks = zip(program.states, formats.states, strict=True)
    scales = {scale_name(name): torch.float32 for name, dtype in blocks if dtype in BLOCK_CODECS}
    return scales | ({codecs.LOW_BITS: torch.bfloat16} if formats.split else {})


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


def _stages(stores: dict[str, Node], guard: Node | None) -> tuple[Stage, ...]:
    """Reductions of the same depth share a pass; the stores are the last one."""
    depth: dict[Node, int] = {}
    for node in walk([*([] if guard is None else [guard]), *stores.values()]):
        depth[node] = max((depth[a] for a in node.args), default=0) + (node.op == REDUCTION)
    levels = sorted({depth[n] for n in depth if n.op == REDUCTION})
    stages = [_stage(tuple(n for n in depth if n.op == REDUCTION and depth[n] == level), {}) for level in levels]
    return (*stages, _stage((), stores))


def _stage(reductions: tuple[Node, ...], stores: dict[str, Node]) -> Stage:
    stage = Stage(reductions, stores, ())
    scalars: dict[Node, None] = {}
    for node in stage.body():
        scalars |= {a: None for a in node.args if not a.varies and a.kind == "float" and a.op != "const"}
    scalars |= {root: None for root in stage.roots if not root.varies and root.op != "const"}
    return Stage(reductions, stores, tuple(scalars))
