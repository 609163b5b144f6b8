"""Lowering: formats at the edges of a program, and the program split into stages at its reductions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch

from neon.engine.program import graph
from neon.engine.program.formats import FORMATS
from neon.engine.program.formats.blocks import BLOCK_OF_ELEMENTS
from neon.engine.program.graph import REDUCTION, Node, is_narrow_sum, walk
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
    stages = _stages(stores, [*([] if guard is None else [guard]), *numbers.values()], of_blocks, spaces)
    beside = dict(_named(stages))
    kernel = Kernel(program, formats, slots, stages, guard, numbers, _wide_sums(program, decoded), beside)
    verify(kernel)
    return kernel


def _wide_sums(program: Program, decoded: dict[Node, Node]) -> dict[Node, int]:
    """The reductions over an optimizer by their order in the rule: in all formats, and under all options, the same."""
    below = walk([*program.outputs.values(), *program.new_numbers.values()])
    wide = [node for node in below if node.op == REDUCTION and node.label.over == OPTIMIZER]
    return {node: order for order, node in enumerate(_replace(wide, decoded))}


def _replace(roots: Sequence[Node], mapping: dict[Node, Node]) -> list[Node]:
    """The same graphs with some leaves replaced."""
    new = dict(mapping)
    for node in walk(roots):
        if node not in new:
            args = tuple(new[a] for a in node.args)
            new[node] = node if args == node.args else graph.node(node.op, args, node.label, node.kind)
    return [new[root] for root in roots]


def _stages(
    stores: dict[str, Node], others: Sequence[Node], scales: Collection[str], spaces: Mapping[str, Space]
) -> tuple[Stage, ...]:
    """Reductions of the same depth share a pass; the stores are the last one.

    Before each pass stands what it needs of rows and columns, before the last one the stores of their states.
    """
    depth: dict[Node, int] = {}
    for node in walk([*others, *stores.values()]):
        depth[node] = max((depth[a] for a in node.args), default=0)
        if node.op == REDUCTION and not is_narrow_sum(node):
            # A sum over an optimizer is taken at the same level whether or not gradients are clipped by norms before.
            depth[node] = max(depth[node], int(node.label.over == OPTIMIZER)) + 1
    swept = [node for node in depth if node.op == REDUCTION and not is_narrow_sum(node)]
    passes = [
        _reducing([node for node in swept if depth[node] == level], level - 1) for level in sorted({*map(depth.get, swept)})
    ]
    narrow = {name: root for name, root in stores.items() if spaces.get(name, ELEMENT).is_narrow}
    wide = {name: root for name, root in stores.items() if name not in narrow}
    passes.append(Stage((), wide, numbers_of(wide.values()), _sweeps(wide, scales)))
    stages: list[Stage] = []
    kept: set[Node] = set()
    for stage in passes:
        before = narrow_stage(stage.given, kept, {} if stage.reduces else narrow, spaces)
        if before is not None:
            stages.append(before)
            kept |= {node for loop in before.narrow for node in (*loop.values, *loop.reductions)}
        stages.append(stage)
    return tuple(stages)


def _reducing(reductions: Sequence[Node], level: int) -> Stage:
    """The pass that reduces: one loop for all of its reductions."""
    operands = tuple(dict.fromkeys(operand for reduction in reductions for operand in reduction.args))
    of_tensors = tuple(reduction for reduction in reductions if reduction.space is STEP)
    along = tuple(reduction for reduction in reductions if reduction.space is not STEP)
    return Stage(of_tensors, {}, numbers_of(operands), (Sweep(loads_of(operands), operands),), level, along)


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
