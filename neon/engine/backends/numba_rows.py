"""numba source of passes over the rows of tensors, and of the loops over rows, columns and matrices between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from textwrap import indent
from typing import NamedTuple

from neon.engine.beside import is_sum
from neon.engine.program.graph import LOADS, Node, walk
from neon.engine.program.kernel import LANES, Kernel, Narrow, Stage
from neon.engine.program.kernel import ROWS as ROWS_OF_TOTALS
from neon.engine.program.printer import memory_of
from neon.engine.program.reductions import kind_of
from neon.engine.program.spaces import COLUMNS, MATRIX, ROWS, TENSOR, Space

# A pass over the elements of a chunk, which is of whole rows.
UPDATE = """\
        for row in range(start // columns, (start + count) // columns):
{row}
            for i in range(columns):
{body}"""

# The sums of a row are taken in lanes, by the columns of elements; those of a column one row after another. What a
# chunk adds to that of its tensor are the lanes of every 32nd row, these one after another. Lanes are added pairwise.
REDUCTION = """\
{no_totals}        rest = columns % {lanes}
        for row in range(start // columns, (start + count) // columns):
{row}
{no_lanes}            for first in range(0, columns - rest, {lanes}):
{row_arrays}
                for i in range({lanes}):
{row_body}
            first = columns - rest
{rest_arrays}
            for i in range(rest):
{rest_body}
{add_lanes}{partial}"""

_FOR_LANES = "for lane in range({lanes}):\n{lines}"

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


def sides(kernel: Kernel) -> list[str]:
    """The statements that read the sides of a tensor."""
    first = len(kernel.tensors) + len(kernel.beside)
    names = ("matrices", "rows", "columns", "height")
    return [f"{name} = address[{first + place}]" for place, name in enumerate(names)]


def at(kernel: Kernel, node: Node, first: str = "") -> str:
    """The statement that finds what is kept beside a tensor, from a value on."""
    name, memory = kernel.name_of[node], _memory(node)
    place = len(kernel.tensors) + [*kernel.beside].index(name)
    offset = f" + {first} * {8 if is_sum(node) else kernel.formats.compute.itemsize}" if first else ""
    return f"{name}_at = pointer(address[{place}]{offset}, {memory})"


def _memory(node: Node) -> str:
    if not is_sum(node):
        return "real"
    return "np.uint64" if kind_of(node).by_size else "np.float64"


def _read(kernel: Kernel, node: Node, place: str) -> str:
    """What is kept beside a tensor, as a value; sums are rounded here, once."""
    text = f"{kernel.name_of[node]}_at[{place}]"
    if is_sum(node):
        return f"real(from_bits64({text}))" if kind_of(node).by_size else f"real({text})"
    return text


# -- passes over elements --------------------------------------------------------------------------


def before_a_row(kernel: Kernel, stage: Stage, arrays: Callable[[str], list[str]], *, index: bool) -> list[str]:
    """What is known of a row before its elements are worked on."""
    spaces = {node.space for node in stage.given}
    lines = ["place = row * columns"]
    lines += ["matrix = row // rows"] if spaces & {COLUMNS, MATRIX} or _of_columns(stage) else []
    lines += [f"first = place + address[{kernel.width - 1}]"] if index else []
    for node in stage.given:
        name = kernel.name_of[node]
        lines.append(at(kernel, node, "matrix * columns" if node.space is COLUMNS else ""))
        if node.space is not COLUMNS:
            lines.append(f"{name}_in = {name}_at[{_PLACES[node.space]}]")
    return lines + arrays("place")


_PLACES = {TENSOR: "0", MATRIX: "matrix", ROWS: "row"}


def of_columns(kernel: Kernel, stage: Stage, first: str = "") -> list[str]:
    """The statements that read what is known of the column of an element."""
    names = [kernel.name_of[node] for node in stage.given if node.space is COLUMNS]
    return [f"{name}_in = {name}_at[{first}i]" for name in names]


def texts(kernel: Kernel, stage: Stage) -> dict[Node, str]:
    """How a pass over elements writes what is kept for rows and columns."""
    return {node: f"{kernel.name_of[node]}_in" for node in stage.given}


def _of_columns(stage: Stage) -> list[Node]:
    return [reduction for reduction in stage.along if reduction.space is COLUMNS]


# What numba writes of a sum: no terms, one term more, all lanes of it.
Sums = Callable[[Node], tuple[str, str, str]]


def reduction(
    kernel: Kernel,
    stage: Stage,
    terms: dict[Node, str],
    lines: list[str],
    arrays: Callable[[str], list[str]],
    sums: Sums,
) -> str:
    """A pass that takes sums: `terms` of each reduction, added as `sums` says, after `lines` for each element."""
    lanes, totals = _lanes(stage), _totals(stage)
    body = [*of_columns(kernel, stage, "first + "), *lines]
    body += [sums(r)[1].format(f"{name}[i]", terms[r]) for r, name in lanes.items()]
    body += [sums(r)[1].format(f"{kernel.name_of[r]}_at[first + i]", terms[r]) for r in _of_columns(stage)]
    zeros = {name: sums(r)[0].format(f"{name}[lane]") for r, name in (*lanes.items(), *totals.items())}
    no_totals = [f"for lane in range({ROWS_OF_TOTALS * LANES}):", *(f"    {zeros[name]}" for name in totals.values())]
    return REDUCTION.format(
        lanes=LANES,
        no_totals=_block(no_totals, 8) if totals else "",
        row=indent(
            "\n".join([*before_a_row(kernel, stage, lambda _: [], index=False), *_begun(kernel, stage, sums)]), " " * 12
        ),
        no_lanes=_block(_for_lanes([zeros[name] for name in lanes.values()]), 12) if lanes else "",
        row_arrays=indent("\n".join(arrays("(place + first)")), " " * 16),
        row_body=indent("\n".join(body), " " * 20),
        rest_arrays=indent("\n".join(arrays("(place + first)")), " " * 12),
        rest_body=indent("\n".join(body), " " * 16),
        add_lanes=_block(_of_row(kernel, stage, lanes, totals, sums), 12),
        partial=indent("\n".join(_of_chunk(stage, totals, sums)), " " * 8),
    )


def _begun(kernel: Kernel, stage: Stage, sums: Sums) -> list[str]:
    """Where the sums of columns are, which begin with the first row of a matrix in a chunk."""
    columns = _of_columns(stage)
    if not columns:
        return []
    part = "(matrix * -(-rows // height) + (row - matrix * rows) // height) * columns"
    zeros = [sums(r)[0].format(f"{kernel.name_of[r]}_at[i]") for r in columns]
    return [
        *(at(kernel, r, part) for r in columns),
        "if row == start // columns or row == matrix * rows:",
        "    for i in range(columns):",
        *(f"        {line}" for line in zeros),
    ]


def _of_row(kernel: Kernel, stage: Stage, lanes: dict[Node, str], totals: dict[Node, str], sums: Sums) -> list[str]:
    """What is kept of a row, and what it adds to the sums of its chunk."""
    lines = []
    for r in stage.along:
        if r in lanes:
            lines += [at(kernel, r), f"{kernel.name_of[r]}_at[row] = {_over_lanes(r, lanes[r])}"]
    if totals:
        lines.append(f"turn = (row - start // columns) % {ROWS_OF_TOTALS} * {LANES}")
        lines += _for_lanes([sums(r)[1].format(f"{t}[turn + lane]", f"{lanes[r]}[lane]") for r, t in totals.items()])
    return lines


def _of_chunk(stage: Stage, totals: dict[Node, str], sums: Sums) -> list[str]:
    """What a chunk adds to the sums of its tensor; of ones it is a count."""
    if not stage.reductions:
        return []
    lines = [f"for turn in range({LANES}, {ROWS_OF_TOTALS * LANES}, {LANES}):"] if totals else []
    added = [sums(r)[1].format(f"{name}[lane]", f"{name}[turn + lane]") for r, name in totals.items()]
    lines += [f"    {line}" for line in _for_lanes(added)] if totals else []
    lines.append(f"partials = pointer(at[5] + chunk * {8 * len(stage.reductions)}, np.float64)")
    for k, r in enumerate(stage.reductions):
        lines.append(f"partials[{k}] = {sums(r)[2].format(totals[r], LANES) if r in totals else 'np.float64(count)'}")
    return lines


def _over_lanes(r: Node, lanes: str) -> str:
    return f"largest({lanes}, {LANES})" if kind_of(r).by_size else f"pairwise_sum({lanes}, {LANES})"


def is_count(r: Node) -> bool:
    """Whether a reduction is the number of elements, for which none has to be read."""
    return r.label.op == "total" and r.args[0].op == "const" and r.args[0].label == 1.0


def _totals(stage: Stage) -> dict[Node, str]:
    return {r: f"totals{k}" for k, r in enumerate(r for r in stage.reductions if not is_count(r))}


def _lanes(stage: Stage) -> dict[Node, str]:
    """The lanes of each sum that is taken in lanes, by name."""
    if stage.narrow:
        found = [r for loop in stage.narrow for r in loop.reductions]
    else:
        found = [*_totals(stage), *(r for r in stage.along if r.space is ROWS)]
    return {r: f"lanes{k}" for k, r in enumerate(found)}


def _for_lanes(lines: Sequence[str]) -> list[str]:
    return [f"for lane in range({LANES}):", *(f"    {line}" for line in lines)]


def _block(lines: Sequence[str], by: int) -> str:
    return indent("\n".join(lines), " " * by) + "\n" if lines else ""


def lanes_of(stage: Stage) -> list[tuple[str, int, Node]]:
    """The lanes that a stage needs on the stack, by name, with how many there are and the reduction of each."""
    totals = {} if stage.narrow else _totals(stage)
    return [
        *((name, LANES, r) for r, name in _lanes(stage).items()),
        *((name, ROWS_OF_TOTALS * LANES, r) for r, name in totals.items()),
    ]


# -- loops over rows, columns and matrices ---------------------------------------------------------


def narrow(kernel: Kernel, number: int, given: dict[Node, str], words: Words, sums: Sums) -> str:
    """The loops of a stage, over what is kept beside a tensor."""
    lines: list[str] = []
    stage, kept = kernel.stages[number], {*kernel.kept_before(number)}
    lanes = _lanes(stage)
    for node in _of_columns(kernel.stages[number - 1]) if number else []:
        place = len(kernel.tensors) + [*kernel.beside].index(kernel.name_of[node])
        added = "select(whole[i] < left[i], left[i], whole[i])" if kind_of(node).by_size else "whole[i] + left[i]"
        lines += _COMBINE.format(place=place, memory=_memory(node), added=added).splitlines()
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
    body += [f"{kernel.name_of[node]}_at[i] = {texts[node]}" for node in loop.values]
    before, after = [], []
    for r in loop.reductions:
        empty, add, whole = sums(r)
        lane = f"{lanes[r]}[(i - {_first(loop.of)}) % {LANES}]"
        term = kind_of(r).term.format(*(f"np.float64({texts[operand]})" for operand in r.args))
        body.append(add.format(lane, f"bits64({term})" if kind_of(r).by_size else term))
        before += _for_lanes([empty.format(f"{lanes[r]}[lane]")])
        after.append(f"{kernel.name_of[r]}_at[matrix] = real({whole.format(lanes[r], LANES)})")
    body += [f"{name}_out = {texts[root]}" for name, root in loop.stores.items()]
    body += [words.store(kernel, name, f"{name}_out") for name in loop.stores]
    inner = [*wide, *before, _LOOPS[loop.of], *(f"    {line}" for line in body), *after]
    if loop.of in (ROWS, COLUMNS):
        inner = ["for matrix in range(matrices):", *(f"    {line}" for line in inner)]
    names = dict.fromkeys([*(n for n in read), *loop.values, *loop.reductions])
    return [*(_at(kernel, node) for node in names), *_stored_at(kernel, loop, names), *inner]


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
        return _read(kernel, node, place)
    return f"{'word' if node.kind == 'uint' else 'real'}({node.label}_at[{place}])"


def _at(kernel: Kernel, node: Node) -> str:
    return at(kernel, node) if node in kernel.name_of else _tensor_at(kernel, node.label)


def _tensor_at(kernel: Kernel, name: str) -> str:
    place = [*kernel.tensors].index(name)
    return f"{name}_at = pointer(address[{place}], {memory_of(kernel.tensors[name], 'np')})"


def _stored_at(kernel: Kernel, loop: Narrow, read: Iterable[Node]) -> list[str]:
    known = {_name(kernel, node) for node in read}
    return [_tensor_at(kernel, name) for name in loop.stores if name not in known]
