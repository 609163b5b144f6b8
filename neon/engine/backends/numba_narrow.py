"""numba source of the loops over rows, columns and matrices between passes over elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from textwrap import indent
from typing import NamedTuple

from neon.engine.backends.numba_rows import Sums, at, for_lanes, lanes_by_sum, memory_beside, of_columns, read
from neon.engine.beside import is_sum
from neon.engine.program.graph import LOADS, Node, walk
from neon.engine.program.kernel import LANES, Kernel, Narrow
from neon.engine.program.printer import memory_of
from neon.engine.program.reductions import kind_of
from neon.engine.program.spaces import COLUMNS, MATRIX, ROWS, TENSOR, Space

# Sums of columns that several chunks have left, one chunk after another, to where the first has left its own.
_COMBINE = """\
for matrix in range(matrices):
    for part in range(-(-rows // height)):
        whole = pointer(address[{place}] + matrix * columns * 8, {memory})
        left = pointer(address[{place}] + (matrix * -(-rows // height) + part) * columns * 8, {memory})
        for i in range(columns):
            whole[i] = left[i] if part == 0 else {added}"""

# A loop over what there is one value for; what is a matrix's is read before.
_LOOPS = {
    TENSOR: "for i in range(1):",
    MATRIX: "for i in range(matrices):",
    ROWS: "for i in range(matrix * rows, (matrix + 1) * rows):",
    COLUMNS: "for i in range(matrix * columns, (matrix + 1) * columns):",
}


class Words(NamedTuple):
    """How numba writes values: `formulas` prints roots given texts, `store` what is written to a tensor."""

    formulas: Callable[[Iterable[Node], dict[Node, str]], tuple[list[str], list[str]]]
    store: Callable[[Kernel, str, str], str]


def source(kernel: Kernel, number: int, given: dict[Node, str], words: Words, sums: Sums) -> str:
    """The loops of a stage, over what is kept beside a tensor."""
    lines: list[str] = []
    stage, kept = kernel.stages[number], {*kernel.kept_before(number)}
    lanes = lanes_by_sum(stage)
    for node in of_columns(kernel.stages[number - 1]) if number else []:
        place = len(kernel.tensors) + [*kernel.beside].index(kernel.name_of[node])
        added = "select(whole[i] < left[i], left[i], whole[i])" if kind_of(node).by_size else "whole[i] + left[i]"
        lines += _COMBINE.format(place=place, memory=memory_beside(node), added=added).splitlines()
    for loop in stage.narrow:
        lines += _loop(kernel, loop, lanes, kept, given, words, sums)
        kept |= {*loop.values, *loop.reductions}
    return indent("\n".join(lines), " " * 8)


def _loop(
    kernel: Kernel,
    loop: Narrow,
    lanes: dict[Node, str],
    kept: set[Node],
    numbers: dict[Node, str],
    words: Words,
    sums: Sums,
) -> list[str]:
    """One loop: what it reads of a matrix first, then a line for each value."""
    read = [n for n in walk(loop.roots, into_reductions=False, given=kept) if n in kept or n.op in LOADS]
    found = {node: f"{_name(kernel, node)}_in" for node in read}
    reads = {node: f"{found[node]} = {_value(kernel, node, _index(node.space, loop.of))}" for node in read}
    wide = [line for node, line in reads.items() if node.space is not loop.of]
    body = [line for node, line in reads.items() if node.space is loop.of]
    named, formulas = words.formulas(loop.roots, numbers | found)
    body += named
    texts = dict(zip(loop.roots, formulas, strict=True))
    body += [f"{kernel.name_of[node]}_at[i] = {_written(node, texts[node])}" for node in loop.values]
    before, after = [], []
    for r in loop.reductions:
        empty, add, whole = sums(r)
        lane = f"{lanes[r]}[(i - {_first(loop.of)}) % {LANES}]"
        term = kind_of(r).term.format(*(f"np.float64({texts[operand]})" for operand in r.args))
        body.append(add.format(lane, f"bits64({term})" if kind_of(r).by_size else term))
        before += for_lanes([empty.format(f"{lanes[r]}[lane]")])
        after.append(f"{kernel.name_of[r]}_at[matrix] = real({whole.format(lanes[r], LANES)})")
    body += [f"{name}_out = {texts[root]}" for name, root in loop.stores.items()]
    body += [words.store(kernel, name, f"{name}_out") for name in loop.stores]
    inner = [*wide, *before, _LOOPS[loop.of], *(f"    {line}" for line in body), *after]
    if loop.of in (ROWS, COLUMNS):
        inner = ["for matrix in range(matrices):", *(f"    {line}" for line in inner)]
    names = dict.fromkeys([*(n for n in read), *loop.values, *loop.reductions])
    return [*(_at(kernel, node) for node in names), *_stored_at(kernel, loop, names), *inner]


def _written(node: Node, text: str) -> str:
    """A value as it is kept: of a sum, which is rounded in its place, as the sum was."""
    return f"bits64(np.float64({text}))" if is_sum(node) and kind_of(node).by_size else text


def _first(of: Space) -> str:
    return "matrix * rows" if of is ROWS else "matrix * columns"


def _index(of: Space, within: Space) -> str:
    """Where a loop finds a value of its own space, or of a wider one."""
    if of is within:
        return "i"
    return "0" if of is TENSOR else "matrix" if within in (ROWS, COLUMNS) else "i"


def _name(kernel: Kernel, node: Node) -> str:
    return kernel.name_of.get(node) or str(node.label)


def _value(kernel: Kernel, node: Node, place: str) -> str:
    if node in kernel.name_of:
        return read(kernel, node, place)
    return f"{'word' if node.kind == 'uint' else 'real'}({node.label}_at[{place}])"


def _at(kernel: Kernel, node: Node) -> str:
    return at(kernel, node) if node in kernel.name_of else _tensor_at(kernel, node.label)


def _tensor_at(kernel: Kernel, name: str) -> str:
    place = [*kernel.tensors].index(name)
    return f"{name}_at = pointer(address[{place}], {memory_of(kernel.tensors[name], 'np')})"


def _stored_at(kernel: Kernel, loop: Narrow, read: Iterable[Node]) -> list[str]:
    known = {_name(kernel, node) for node in read}
    return [_tensor_at(kernel, name) for name in loop.stores if name not in known]
