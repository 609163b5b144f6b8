"""Lowering: formats at the edges of a program, and the program split into stages at its reductions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from neon.engine.program import graph
from neon.engine.program.formats import FORMATS
from neon.engine.program.formats.blocks import BLOCK_OF_ELEMENTS
from neon.engine.program.formats.format import Format
from neon.engine.program.graph import CALL, LOADS, REDUCTION, Node, is_narrow_sum, walk
from neon.engine.program.kernel import Calls, Kernel, Stage, Sweep, body_of, loads_of, numbers_of, peaks_of
from neon.engine.program.narrow import narrow_stage, narrowed
from neon.engine.program.random_bits import dither_bits, random_bits
from neon.engine.program.slots import Formats, Slot, slots_of
from neon.engine.program.spaces import ELEMENT, OPTIMIZER, PAIRS, STEP, TENSOR, Space
from neon.engine.program.trace import Program
from neon.engine.program.verify import verify


def lower(program: Program, formats: Formats) -> Kernel:
    """The kernel of a program in these formats, made once."""
    found = program.kernels.get(formats)
    return found if found is not None else program.kernels.setdefault(formats, _lower(program, formats))


def _lower(program: Program, formats: Formats) -> Kernel:
    """Put the formats at the edges of a program and split it into stages."""
    states, spaces, known = _forms(program, formats), _spaces(program), decoded(program, formats)
    values = dict(zip(program.outputs, replaced(list(program.outputs.values()), known), strict=True))
    stores: dict[str, Node] = {}
    for name, value in values.items():
        if name == "w":
            random = None if formats.width is None else random_bits()
            stores |= formats.weight.encode(name, value, random, formats.width or None)
        else:  # a mean of squares moves by a thousandth of itself: to nearest, it would stand still
            encoded = states[name].encode(name, value, dither_bits(1 + [*states].index(name)))
            whole = spaces[name] in PAIRS  # kept as they are computed, and perhaps of elements
            stores |= encoded if whole else {stored: narrowed(root, spaces[name]) for stored, root in encoded.items()}
    guard = None if program.guard is None else replaced([program.guard], known)[0]
    numbers = dict(zip(program.new_numbers, replaced([*program.new_numbers.values()], known), strict=True))
    slots = slots_of(program, formats.states, split=formats.split)
    of_blocks = {slot.name for slot in slots if slot.space is BLOCK_OF_ELEMENTS}
    # What is looked through for what is not finite may refuse the step: nothing is stored before.
    exact = [slot.name for slot in slots if slot.dtype == formats.compute]
    early = () if guard is not None or program.by_rows else exact
    values = _Values(stores, numbers, guard, replaced(_wide_sums(program), known))
    passes, buffers = [], _Buffers()
    while level := values.next_level():
        if level.calls:
            before = values.store_before_calls(_owners(slots, spaces), exact)
            passes += _calling(level, before, values, buffers, of_blocks)
        else:
            stored = values.store_early(level.reductions, early) if level.number is not None else {}
            passes.append(_reducing(level, stored))
    apart = {name: root for name, root in values.stores.items() if spaces.get(name, ELEMENT) is not ELEMENT}
    passes = _with_pairs(passes, {name: root for name, root in apart.items() if spaces[name] in PAIRS})
    narrow = {name: root for name, root in apart.items() if spaces[name] not in PAIRS}
    stored = {name: root for name, root in values.stores.items() if name not in apart}
    passes.append(Stage((), stored, numbers_of(stored.values()), _sweeps(stored, of_blocks)))
    stages = _with_narrow(passes, narrow, spaces)
    wide = {node: order for order, node in enumerate(values.wide)}
    named = dict(_named(stages))
    kernel = Kernel(program, formats, slots, stages, guard, values.numbers, wide, named, buffers.names)
    verify(kernel)
    return kernel


def _forms(program: Program, formats: Formats) -> dict[str, Format]:
    """The formats of states."""
    return dict(zip(program.states, (FORMATS[dtype] for dtype in formats.states), strict=True))


def _spaces(program: Program) -> dict[str, Space]:
    """What each tensor has a value for."""
    return {"w": ELEMENT, "g": ELEMENT, **{name: state.of for name, state in program.states.items()}}


def decoded(program: Program, formats: Formats) -> dict[Node, Node]:
    """What stands in these formats for what a program reads: of each tensor, and of the precision of the weight."""
    forms, spaces = {"w": formats.weight, "g": FORMATS[formats.g], **_forms(program, formats)}, _spaces(program)
    known = {graph.load(name, spaces[name]): narrowed(f.decode(name), spaces[name]) for name, f in forms.items()}
    known[graph.node(graph.PRECISION)] = graph.const(torch.finfo(formats.compute if formats.split else formats.w).eps)
    return known


def _owners(slots: Sequence[Slot], spaces: Mapping[str, Space]) -> dict[str, str]:
    """The state of elements that each tensor belongs to, its own or one that a format needs beside it."""
    owners = {slot.name: slot.auxiliary_of or slot.name for slot in slots}
    return {name: owner for name, owner in owners.items() if spaces.get(owner) is ELEMENT and owner != "w"}


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
        wide = [order[node] for node in level.reductions if node in order]
        if wide and level.number is not None:
            found[level.number] = wide
    return found


class _Level(NamedTuple):
    """Reductions that can be taken together, or calls; a level has no number where no other tensor takes part in it."""

    reductions: list[Node]
    number: int | None
    calls: list[Node]


class _Values:
    """What is still to be computed of a program, while its reductions are taken away level by level."""

    def __init__(self, stores: dict[str, Node], numbers: dict[str, Node], guard: Node | None, wide: list[Node]) -> None:
        self.stores, self.numbers, self.guard, self.wide = stores, numbers, guard, wide
        self._taken: set[Node] = set()
        self._alone = False  # whether all that is still summed is of single tensors, and is best summed at once

    def _roots(self) -> list[Node]:
        return [*([] if self.guard is None else [self.guard]), *self.numbers.values(), *self.stores.values()]

    def next_level(self) -> _Level | None:
        """The reductions that can be taken now: those of one depth share a pass."""
        depth: dict[Node, int] = {}
        behind: set[Node] = set()  # what depends on the result of a call
        calls: list[Node] = []
        for node in walk(self._roots()):
            depth[node] = max((depth[a] for a in node.args), default=0)
            waits = not behind.isdisjoint(node.args)
            if node.op == REDUCTION and not is_narrow_sum(node):
                # A sum over an optimizer is taken at the same level whether or not norms are clipped by before.
                depth[node] = max(depth[node], int(node.label.over == OPTIMIZER)) + 1
            if node.op == CALL and node not in self._taken and not waits:
                calls.append(node)
            if waits or (node.op == CALL and node not in self._taken):
                behind.add(node)
        sums = [n for n in depth if n.op == REDUCTION and not is_narrow_sum(n) and n not in behind]
        if pending := [node for node in sums if node not in self._taken]:
            lowest = min(depth[node] for node in pending)
            level = [node for node in pending if depth[node] == lowest]
            # What is kept beside tensors is in the way until they have been updated.
            keeps = any(node.space is not STEP for node in level)
            self._alone |= keeps and not any(_is_wide(node) for node in depth if node not in self._taken)
            self._taken |= {*level}
            return _Level(level, None if self._alone else lowest - 1, [])
        self._alone |= bool(calls)
        self._taken |= {*calls}
        return _Level([], None, calls) if calls else None

    def store_early(self, reductions: Sequence[Node], exact: Collection[str]) -> dict[str, Node]:
        """What the pass that reduces can store, of states that lose nothing: all later passes read it as it is then."""
        computed = {*walk([a for r in reductions for a in r.args], into_reductions=False)}
        early = {name: root for name, root in self.stores.items() if name in exact and name != "w" and root in computed}
        return self._stored(early, exact, {name: name for name in early})

    def store_before_calls(self, owners: Mapping[str, str], exact: Collection[str]) -> dict[str, Node]:
        """What a pass before calls can store: states that do not wait for these, and are not read as they were."""
        known = {name: root for name, root in self.stores.items() if name in owners}
        wait = {owners[name] for name, root in known.items() if any(node.op == CALL for node in walk([root]))}
        early = {name: root for name, root in known.items() if owners[name] not in wait}
        return self._stored(early, exact, owners)

    def _stored(self, early: dict[str, Node], exact: Collection[str], owners: Mapping[str, str]) -> dict[str, Node]:
        """Take away what is stored early: what loses nothing is read as it is then, the rest is not read again."""
        while early:
            stored = {root: graph.node("load", label=_NEW + name) for name, root in early.items() if name in exact}
            later = {name: root for name, root in self.stores.items() if name not in early}
            parts = [*later.values()], [*self.numbers.values()], self.wide
            fixed = {node: node for node in self._taken}
            new_roots = replaced([root for part in parts for root in part], stored | fixed)
            read = {n.label for n in walk(new_roots, given=self._taken) if n.op in LOADS}
            if kept := {owners[name] for name in read & {*early}}:  # what it was before is read as well
                early = {name: root for name, root in early.items() if owners[name] not in kept}
                continue
            known = {new: graph.load(new.label.removeprefix(_NEW)) for new in stored.values()}
            self._renew(later, iter(replaced(new_roots, known | fixed)))
            break
        return early

    def _renew(self, stores: Mapping[str, Node], new: Iterator[Node]) -> None:
        self.stores = dict(zip(stores, new, strict=False))
        self.numbers = dict(zip(self.numbers, new, strict=False))
        self.wide = [*new]

    def replace(self, results: Mapping[Node, Node]) -> None:
        """Have what is computed later read results of calls where they lie."""
        roots = [*self.stores.values(), *self.numbers.values(), *self.wide]
        fixed = {node: node for node in self._taken if node not in results}
        self._taken |= {new for new in results.values() if new.op == CALL}
        self._renew(self.stores, iter(replaced(roots, {**fixed, **results})))

    def read(self) -> set[str]:
        """The names of all tensors that are read later."""
        below = walk(self._roots(), given=self._taken)
        return {str(node.label) for node in below if node.op in LOADS}


def _is_wide(node: Node) -> bool:
    """Whether it is a sum over more than a tensor."""
    is_sum = node.op == REDUCTION and node.space is STEP and not is_narrow_sum(node)
    return is_sum and node.label.over != TENSOR


# What a state is called once it has been stored, while it is not known whether that can be.
_NEW = "new "


def replaced(roots: Sequence[Node], mapping: Mapping[Node, Node]) -> list[Node]:
    """The same graphs with some leaves replaced."""
    new = dict(mapping)
    for node in walk(roots):
        if node not in new:
            args = tuple(new[a] for a in node.args)
            new[node] = node if args == node.args else graph.node(node.op, args, node.label, node.kind)
    return [new[root] for root in roots]


class _Buffers:
    """The buffers of a kernel, by names; `held` are those with results of calls that are still read."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.held: set[str] = set()

    def take(self) -> str:
        """One that nobody reads, from now on held."""
        free = next((name for name in self.names if name not in self.held), None)
        if free is None:
            free = f"buffer{len(self.names)}"
            self.names = (*self.names, free)
        self.held.add(free)
        return free

    def keep(self, names: Iterable[str]) -> None:
        """Hold these alone."""
        self.held &= {*names}


def _calling(
    level: _Level, stores: dict[str, Node], values: _Values, buffers: _Buffers, of_blocks: Collection[str]
) -> list[Stage]:
    """The pass that writes what calls take, with what can be stored by then, and these calls."""
    operands = [*dict.fromkeys(a for call in level.calls for a in call.args if a.space is ELEMENT)]
    there = {node: node.label for node in operands if node.op == "load" and node.label in buffers.names}
    of_elements = [call for call in level.calls if call.space is ELEMENT]
    results = [graph.load(f"result {place}") for place, _ in enumerate(of_elements)]
    values.replace(dict(zip(of_elements, results, strict=True)))
    if not of_blocks:  # a pass over blocks reads again what it has read
        buffers.keep({*values.read(), *there.values()})
    fed = {node: buffers.take() for node in operands if node not in there}
    feeding = {name: node for node, name in fed.items()} | stores
    made = dict(zip(level.calls, replaced(level.calls, {n: graph.load(name) for n, name in fed.items()}), strict=True))
    buffers.keep(values.read())
    names = [buffers.take() for _ in results]
    lying = dict(zip(results, map(graph.load, names), strict=True))
    of_pairs = {call: made[call] for call in level.calls if call.space is not ELEMENT}
    values.replace(lying | of_pairs)
    calls = Calls(dict(zip(names, map(made.__getitem__, of_elements), strict=True)), values=(*of_pairs.values(),))
    stages = [Stage((), {}, numbers_of(calls.roots), (), calls=calls)]
    if feeding:
        stages.insert(0, Stage((), feeding, numbers_of(feeding.values()), _sweeps(feeding, of_blocks)))
    return stages


def _with_pairs(passes: list[Stage], stores: dict[str, Node]) -> list[Stage]:
    """The passes with the states of pairs stored behind the last calls, which read them as they were."""
    if not stores:
        return passes
    last = max(place for place, stage in enumerate(passes) if stage.calls is not None)
    found = passes[last].calls
    assert found is not None
    calls = replace(found, stores=stores)
    return [*passes[:last], replace(passes[last], calls=calls, scalars=numbers_of(calls.roots)), *passes[last + 1 :]]


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
        before = narrow_stage(stage.given, kept, stores if stage is passes[-1] else {}, spaces)
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


# Operations that the second loop over a block may make again, of what the first has made: to decode a weight.
_MADE_AGAIN = 2


def _sweeps(stores: dict[str, Node], scales: Collection[str]) -> tuple[Sweep, ...]:
    """The values that have peaks first; then all that is stored, or of that only what waits for the peaks.

    A root and a division take turns with encoding better than with decoding, but not if much had to be computed twice.
    """
    peaks = peaks_of(stores.values())
    if not peaks:
        return (Sweep(loads_of(stores.values()), (), stores),)
    values = tuple(dict.fromkeys(peak.args[0] for peak in peaks))
    early = {name: root for name, root in stores.items() if not peaks_of([root])}
    made = {node for node in body_of(values) if node.op not in LOADS}
    if len(made.intersection(body_of(early.values(), values))) <= _MADE_AGAIN:
        early = {}
    late = {name: root for name, root in stores.items() if name not in early}
    given = (*values, *peaks)
    codes = {name: root for name, root in late.items() if name not in scales}
    of_block = {name: root for name, root in late.items() if name in scales}
    first = Sweep(loads_of([*early.values(), *values]), values, early)
    return (first, Sweep(loads_of(late.values(), given), (), codes, of_block, given))
