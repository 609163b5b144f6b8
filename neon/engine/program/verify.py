"""The verifier: every kernel is checked against a small specification before a backend sees it.

What a backend prints it takes from the stages: their loads, sweeps and stores. So what holds of these holds of the
generated code: all that is read is declared, every value exists before a store that would change it, kinds fit.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from neon.engine.program.graph import (
    BOOL,
    CALL,
    ELEMENT_LEAVES,
    FLOAT,
    LEAVES,
    LOADS,
    OPERATIONS,
    REDUCTION,
    UINT,
    Node,
    walk,
)
from neon.engine.program.kernel import Kernel, Stage, Sweep
from neon.engine.program.reductions import REDUCTIONS
from neon.engine.program.spaces import ELEMENT, PAIRS, STEP, joined

_PLAIN = (torch.float32, torch.float64)


class KernelError(AssertionError):
    """A kernel breaks the specification: a fault of the engine, never of a rule."""


def verify(kernel: Kernel) -> None:
    """Raise `KernelError` where a kernel breaks the specification."""
    summed: set[Node] = set()
    kept: set[Node] = set()
    for stage in kernel.stages:
        _hold({*stage.given} <= kept, "what is read of rows and columns is computed before", *stage.given)
        _check_values(kernel, stage)
        _check_numbers(stage, summed, kept)
        if stage.narrow:
            kept |= _check_narrow(kernel, stage, kept)
        elif stage.calls is not None:
            _check_calls(kernel, stage)
        else:
            _check_sweeps(kernel, stage)
        summed |= {*stage.reductions, *stage.along}
        kept |= {*stage.along}
    _check_new_numbers(kernel, summed)
    *before, last = kernel.stages
    passes = [stage for stage in before if stage.is_pass]
    first = next((place for place, stage in enumerate(before) if stage.level is None and stage.is_pass), len(before))
    levels = [stage.level for stage in before if stage.is_pass and stage.level is not None]
    _hold(
        levels == sorted(levels) and all(s.level is None for s in before[first:]),
        "levels come before what has none",
    )
    _hold(all(stage.reduces or stage.stores for stage in passes), "a stage before the last sums or stores")
    early = [name for stage in passes for name in stage.stores if name not in kernel.buffers]
    _hold("w" not in early and len({*early}) == len(early), "the weight is stored last, and a state once", *early)
    guarded = [name for stage in passes if stage.level is not None for name in stage.stores]
    _hold(not guarded or kernel.guard is None, "what can be refused is before all stores", *guarded)
    stored: set[str] = set()
    for stage in kernel.stages:
        again = stored & {load.label for load in stage.loads if kernel.tensors[load.label] != kernel.formats.compute}
        _hold(not again, "what is read again once it is stored loses nothing", *again)
        stored |= {*stage.stores}
    _hold(last.is_pass and not last.reduces, "the last stage stores, and no more")
    _hold(not any(stage.seen for stage in before), "what there is to see is summed by the last stage")
    early = [name for stage in before[:-1] for loop in stage.narrow for name in loop.stores]
    _hold(not early, "states of rows and columns are stored before the last pass, and no earlier", *early)
    _hold({*kernel.beside.values()} == kept, "what is kept beside tensors has names", *kernel.beside)


def _hold(holds: bool, rule: str, *found: object) -> None:
    if not holds:
        raise KernelError(f"In a kernel, {rule}. Found: {', '.join(map(str, found)) or 'otherwise'}.")


# -- each value ------------------------------------------------------------------------------------


def _check_values(kernel: Kernel, stage: Stage) -> None:
    for node in walk(stage.roots, into_reductions=False, given=stage.given):
        if node in stage.given:
            continue
        if node.op in LOADS:
            _check_load(kernel, node)
        elif node.op == REDUCTION:
            kind = REDUCTIONS.get(node.label.op)
            of = {FLOAT} if kind is None or not kind.counts else {BOOL}
            known = kind is not None and {a.kind for a in node.args} == of
            _hold(known, "a reduction of the table is of numbers, and a count of conditions", node)
        elif node.op == CALL:
            _hold(stage.calls is not None, "calls are of stages of their own", node)
        elif node.op in LEAVES:
            kinds = {"scalar": (FLOAT,), "const": (FLOAT, UINT)}.get(node.op, (UINT, FLOAT))
            _hold(node.kind in kinds and not node.args, "a leaf is a number or a word", node)
        else:
            form = OPERATIONS.get(node.op)
            _hold(form is not None, "every operation is one of the table", node.op)
            takes, result = (form.takes, form.result) if form else ((), "")
            kinds = tuple(a.kind for a in node.args)
            _hold((kinds, node.kind) == (takes, result), f"{node.op} takes {takes} to {result}", kinds, node.kind)
    for name, root in stage.stores.items():
        _hold(name in kernel.tensors and name != "g", "what is stored is a weight or a state", name)
        kind = FLOAT if kernel.tensors[name] in _PLAIN else UINT
        _hold(root.kind == kind, f"{name} is stored as {kind}", root.kind)
    # Nothing is left half written: the codes of a block and its scale, a split weight and its low bits.
    for slot in kernel.slots:
        together = slot.auxiliary_of is None or (slot.auxiliary_of in stage.stores) == (slot.name in stage.stores)
        _hold(together, f"{slot.auxiliary_of} is stored together with {slot.name}")


def _check_load(kernel: Kernel, node: Node) -> None:
    _hold(node.label in kernel.tensors, "all that is loaded is declared", node.label)
    if node.label in kernel.scales:
        expected = ("load_block", FLOAT)
    else:
        expected = ("load", FLOAT) if kernel.tensors[node.label] in _PLAIN else ("load_bits", UINT)
    _hold((node.op, node.kind) == expected, f"{node.label} is loaded by {expected}", node.op, node.kind)


# -- numbers of the host ---------------------------------------------------------------------------


def _check_numbers(stage: Stage, summed: set[Node], kept: set[Node]) -> None:
    given = {*stage.scalars, *(kept if stage.narrow else stage.given)}
    for number in stage.scalars:
        steady = number.kind == FLOAT and number.space is STEP
        _hold(steady, "the host computes numbers that do not vary", number)
    for node in walk(stage.scalars, into_reductions=False):
        _hold(node.op != REDUCTION or node in summed, "a sum is used in a later stage than it is taken in", node)
    for node in walk(stage.roots, into_reductions=False, given=given):
        computed = node.space is not STEP or node.kind == BOOL or node.op == "const" or node in given
        _hold(computed, "a number that does not vary is computed by the host", node)


def _check_new_numbers(kernel: Kernel, summed: set[Node]) -> None:
    for node in walk(kernel.numbers.values(), into_reductions=False):
        _hold(
            node.space is STEP and (node.op != REDUCTION or node in summed),
            "numbers are made of numbers and sums",
            node,
        )


# -- calls -----------------------------------------------------------------------------------------


def _check_calls(kernel: Kernel, stage: Stage) -> None:
    """Calls read buffers and states of pairs, and write no others."""
    spaces = {slot.name: slot.space for slot in kernel.slots}
    assert stage.calls is not None
    _hold({*stage.calls.buffers} <= {*kernel.buffers}, "calls write to buffers", *stage.calls.buffers)
    _hold(all(spaces[name] in PAIRS for name in stage.calls.stores), "calls store pairs", *stage.calls.stores)
    for node in walk(stage.roots, into_reductions=False):
        of_pairs = spaces.get(node.label) in PAIRS if node.op in LOADS else node.space in PAIRS
        whole = of_pairs or node.op == CALL or node.space is STEP
        _hold(whole or (node.op in LOADS and node.label in kernel.buffers), "calls work on whole matrices", node)
    _hold(all(root.space in (ELEMENT, *PAIRS) for root in stage.roots), "calls make matrices", *stage.roots)


# -- rows and columns ------------------------------------------------------------------------------


def _check_narrow(kernel: Kernel, stage: Stage, before: set[Node]) -> set[Node]:
    """Follow the loops over rows, columns and matrices; what they keep beside each tensor."""
    kept: set[Node] = set()
    written: set[str] = set()
    spaces = {slot.name: slot.space for slot in kernel.slots}
    for loop in stage.narrow:
        known = before | kept
        for node in walk(loop.roots, into_reductions=False, given=known):
            _hold(joined([node.space, loop.of]) is loop.of, f"a loop over {loop.of} computes no more than that", node)
            _hold(
                node.op != REDUCTION or node in known or node.space is STEP, "a reduction is taken before its use", node
            )
            _hold(node in known or node.op not in LOADS or node.label not in written,
                  "every value exists before a store that would change it", node)  # fmt: skip
        for reduction in loop.reductions:
            of = joined(operand.space for operand in reduction.args)
            _hold(of is loop.of and of.is_narrow, "a reduction is taken in the loop over its operands", reduction)
        kept |= {*loop.values, *loop.reductions}
        written |= {*loop.stores}
        _hold(
            all(spaces[name] is loop.of for name in loop.stores), "a state is stored in the loop over it", *loop.stores
        )
    return kept


# -- the order of reading and writing --------------------------------------------------------------


def _check_sweeps(kernel: Kernel, stage: Stage) -> None:
    """Follow the sweeps over a block of elements, from the first to the last."""
    written: set[str] = set()
    known: set[Node] = set()
    for sweep in stage.sweeps:
        _hold({*sweep.given} <= known, "a sweep is given what an earlier one has computed", sweep.given)
        _hold({*sweep.loads} == _read(sweep), "a sweep declares its loads, and no others", sweep.loads)
        for load in sweep.loads:
            in_time = load.op == "load_block" or load.label not in written
            _hold(in_time, "every value exists before a store that would change it", f"{load} in a later sweep")
        for name, root in sweep.of_block.items():
            varying = {n.op for n in walk([root], given=sweep.given) if n not in sweep.given} & {*ELEMENT_LEAVES}
            _hold(name in kernel.scales and not varying, "a block's number depends on its peaks alone", name)
        known |= {*sweep.values} | {peak for peak in stage.peaks if peak.args[0] in sweep.values}
        written |= {*sweep.stores, *sweep.of_block}
    stores = [item for sweep in stage.sweeps for item in (*sweep.stores.items(), *sweep.of_block.items())]
    _hold(len(stores) == len(stage.stores) and dict(stores) == stage.stores, "each store is in one sweep", *written)
    summed = {operand for reduction in (*stage.reductions, *stage.along) for operand in reduction.args}
    _hold(summed <= known, "what is summed is computed", *stage.reductions)
    seen = [operand for sweep in stage.sweeps for operand in sweep.seen]
    _hold({*seen} == {o for r in stage.seen for o in r.args}, "what there is to see is computed", *stage.seen)


def _read(sweep: Sweep) -> set[Node]:
    roots: Iterable[Node] = (*sweep.stores.values(), *sweep.of_block.values(), *sweep.values, *sweep.seen)
    below = walk(roots, into_reductions=False, given=sweep.given)
    return {node for node in below if node.op in LOADS and node.varies and node not in sweep.given}
