"""Lowering: formats at the edges of a program, and the program split into stages at its reductions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from neon.engine.program import graph
from neon.engine.program.formats import FORMATS
from neon.engine.program.formats.blocks import BLOCK_OF_ELEMENTS
from neon.engine.program.graph import LOADS, REDUCTION, Node, is_narrow_sum, walk
from neon.engine.program.kernel import Kernel, Stage, Sweep, loads_of, numbers_of, peaks_of
from neon.engine.program.narrow import narrow_stage, narrowed
from neon.engine.program.random_bits import dither_bits, random_bits
from neon.engine.program.slots import Formats, slots_of
from neon.engine.program.spaces import ELEMENT, OPTIMIZER, STEP, Space
from neon.engine.program.trace import Program
from neon.engine.program.verify import verify


def lower(program: Program, formats: Formats) -> Kernel:
    """The kernel of a program in these formats, made once."""
    found = program.kernels.get(formats)
    return found if found is not None else program.kernels.setdefault(formats, _lower(program, formats))


def _lower(program: Program, formats: Formats) -> Kernel:
    """Put the formats at the edges of a program and split it into stages."""
    states = dict(zip(program.states, (FORMATS[dtype] for dtype in formats.states), strict=True))
    forms = {"w": formats.weight, "g": FORMATS[formats.g], **states}
    spaces = {"w": ELEMENT, "g": ELEMENT, **{name: state.of for name, state in program.states.items()}}
    decoded = {graph.load(name, spaces[name]): narrowed(f.decode(name), spaces[name]) for name, f in forms.items()}
    decoded[graph.node(graph.PRECISION)] = graph.const(torch.finfo(formats.compute if formats.split else formats.w).eps)
    values = dict(zip(program.outputs, _replace(list(program.outputs.values()), decoded), strict=True))
    stores: dict[str, Node] = {}
    for name, value in values.items():
        if name == "w":
            random = None if formats.width is None else random_bits()
            stores |= formats.weight.encode(name, value, random, formats.width or None)
        else:  # a mean of squares moves by a thousandth of itself: to nearest, it would stand still
            encoded = forms[name].encode(name, value, dither_bits(1 + [*states].index(name)))
            stores |= {stored: narrowed(root, spaces[name]) for stored, root in encoded.items()}
    guard = None if program.guard is None else _replace([program.guard], decoded)[0]
    numbers = dict(zip(program.new_numbers, _replace([*program.new_numbers.values()], decoded), strict=True))
    slots = slots_of(program, formats.states, split=formats.split)
    of_blocks = {slot.name for slot in slots if slot.space is BLOCK_OF_ELEMENTS}
    # What is looked through for what is not finite may refuse the step: nothing is stored before.
    exact = () if guard is not None or program.by_rows else [s.name for s in slots if s.dtype == formats.compute]
    values = _Values(stores, numbers, guard, _replace(_wide_sums(program), decoded))
    passes = []
    while level := values.next_level():
        passes.append(_reducing(level, values.store_early(level.reductions, exact)))
    narrow = {name: root for name, root in values.stores.items() if spaces.get(name, ELEMENT).is_narrow}
    stored = {name: root for name, root in values.stores.items() if name not in narrow}
    passes.append(Stage((), stored, numbers_of(stored.values()), _sweeps(stored, of_blocks)))
    stages = _with_narrow(passes, narrow, spaces)
    wide = {node: order for order, node in enumerate(values.wide)}
    kernel = Kernel(program, formats, slots, stages, guard, values.numbers, wide, dict(_named(stages)))
    verify(kernel)
    return kernel


def _wide_sums(program: Program) -> list[Node]:
    """The reductions over an optimizer in the order of the rule: in all formats, and under all options, the same."""
    below = walk([*program.outputs.values(), *program.new_numbers.values()])
    return [node for node in below if node.op == REDUCTION and node.label.over == OPTIMIZER]


def wide_levels(program: Program) -> dict[int, list[int]]:
    """The sums of a program over an optimizer, by their order in its rule, at the levels at which they are taken."""
    values = _Values(program.outputs, program.new_numbers, program.guard, [])
    order = {node: place for place, node in enumerate(_wide_sums(program))}
    found: dict[int, list[int]] = {}
    while level := values.next_level():
        if wide := [order[node] for node in level.reductions if node in order]:
            found[level.number] = wide
    return found


class _Level(NamedTuple):
    reductions: list[Node]
    number: int


class _Values:
    """What is still to be computed of a program, while its reductions are taken away level by level."""

    def __init__(self, stores: dict[str, Node], numbers: dict[str, Node], guard: Node | None, wide: list[Node]) -> None:
        self.stores, self.numbers, self.guard, self.wide = stores, numbers, guard, wide
        self._taken: set[Node] = set()

    def _roots(self) -> list[Node]:
        return [*([] if self.guard is None else [self.guard]), *self.numbers.values(), *self.stores.values()]

    def next_level(self) -> _Level | None:
        """The reductions that can be taken now: those of one depth share a pass."""
        depth: dict[Node, int] = {}
        for node in walk(self._roots()):
            depth[node] = max((depth[a] for a in node.args), default=0)
            if node.op == REDUCTION and not is_narrow_sum(node):
                # A sum over an optimizer is taken at the same level whether or not norms are clipped by before.
                depth[node] = max(depth[node], int(node.label.over == OPTIMIZER)) + 1
        pending = [n for n in depth if n.op == REDUCTION and n not in self._taken and not is_narrow_sum(n)]
        if not pending:
            return None
        number = min(depth[n] for n in pending)
        level = [n for n in pending if depth[n] == number]
        self._taken |= {*level}
        return _Level(level, number - 1)

    def store_early(self, reductions: Sequence[Node], exact: Collection[str]) -> dict[str, Node]:
        """What the pass that reduces can store, of states that lose nothing: all later passes read it as it is then."""
        computed = {*walk([a for r in reductions for a in r.args], into_reductions=False)}
        early = {name: root for name, root in self.stores.items() if name in exact and name != "w" and root in computed}
        while early:
            stored = {root: graph.node("load", label=_NEW + name) for name, root in early.items()}
            later = {name: root for name, root in self.stores.items() if name not in early}
            parts = [*later.values()], [*self.numbers.values()], self.wide
            replaced = _replace([root for part in parts for root in part], stored | {r: r for r in self._taken})
            read = {n.label for n in walk(replaced, given=self._taken) if n.op in LOADS}
            if kept := read & {*early}:  # what it was before is read as well
                early = {name: root for name, root in early.items() if name not in kept}
                continue
            known = {new: graph.load(new.label.removeprefix(_NEW)) for new in stored.values()}
            done = iter(_replace(replaced, known | {r: r for r in self._taken}))
            self.stores = dict(zip(later, done, strict=False))
            self.numbers = dict(zip(self.numbers, done, strict=False))
            self.wide = [*done]
            break
        return early


# What a state is called once it has been stored, while it is not known whether that can be.
_NEW = "new "


def _replace(roots: Sequence[Node], mapping: dict[Node, Node]) -> list[Node]:
    """The same graphs with some leaves replaced."""
    new = dict(mapping)
    for node in walk(roots):
        if node not in new:
            args = tuple(new[a] for a in node.args)
            new[node] = node if args == node.args else graph.node(node.op, args, node.label, node.kind)
    return [new[root] for root in roots]


def _reducing(level: _Level, stores: dict[str, Node]) -> Stage:
    """The pass that reduces: one loop for all of its reductions, and for what can be stored by then."""
    operands = tuple(dict.fromkeys(operand for reduction in level.reductions for operand in reduction.args))
    roots = (*stores.values(), *operands)
    sweep = Sweep(loads_of(roots), operands, stores)
    of_tensors = tuple(reduction for reduction in level.reductions if reduction.space is STEP)
    along = tuple(reduction for reduction in level.reductions if reduction.space is not STEP)
    return Stage(of_tensors, stores, numbers_of(roots), (sweep,), level.number, along)


def _with_narrow(passes: Sequence[Stage], stores: Mapping[str, Node], spaces: Mapping[str, Space]) -> tuple[Stage, ...]:
    """The passes, each behind what it needs of rows and columns, the last one behind the stores of their states."""
    stages: list[Stage] = []
    kept: set[Node] = set()
    for stage in passes:
        before = narrow_stage(stage.given, kept, {} if stage.reduces else stores, spaces)
        if before is not None:
            stages.append(before)
            kept |= {node for loop in before.narrow for node in (*loop.values, *loop.reductions)}
        stages.append(stage)
    return tuple(stages)


def _named(stages: Sequence[Stage]) -> Iterator[tuple[str, Node]]:
    """What is kept beside each tensor, with names."""
    counts: Counter[str] = Counter()
    for stage in stages:
        sums = [(f"{node.space}_sum", node) for node in stage.along]
        values = [(str(node.space), node) for loop in stage.narrow for node in (*loop.reductions, *loop.values)]
        for name, node in (*sums, *values):
            yield f"{name}{counts[name]}", node
            counts[name] += 1


def _sweeps(stores: dict[str, Node], scales: Collection[str]) -> tuple[Sweep, ...]:
    """What does not depend on a block's peaks first, with the values that have these peaks; then the rest."""
    peaks = peaks_of(stores.values())
    if not peaks:
        return (Sweep(loads_of(stores.values()), (), stores),)
    values = tuple(dict.fromkeys(peak.args[0] for peak in peaks))
    late = {name: root for name, root in stores.items() if peaks_of([root])}
    early = {name: root for name, root in stores.items() if name not in late}
    given = (*values, *peaks)
    codes = {name: root for name, root in late.items() if name not in scales}
    of_block = {name: root for name, root in late.items() if name in scales}
    first = Sweep(loads_of([*early.values(), *values]), values, early)
    return (first, Sweep(loads_of(late.values(), given), (), codes, of_block, given))
