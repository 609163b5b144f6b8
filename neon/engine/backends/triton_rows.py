"""Triton source of passes over the rows of tensors, and of the loops over rows, columns and matrices between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from neon.engine.backends.triton_writer import indented, writer
from neon.engine.beside import is_sum
from neon.engine.program.graph import LOADS, Node, walk
from neon.engine.program.kernel import LANES, ROWS, Kernel, Narrow, Stage
from neon.engine.program.printer import assignments, memory_of
from neon.engine.program.reductions import kind_of
from neon.engine.program.spaces import COLUMNS, MATRIX, TENSOR, Space
from neon.engine.program.spaces import ROWS as OF_ROWS

# Columns that a program sums at a time, and values for rows or columns that it computes at a time.
WIDTH = 1024

# Where an element of a chunk is: its row and its column, and the matrix of these.
PLACE = (
    "line = i // columns",
    "column = i - line * columns",
    "matrix = begin_matrix + (line + begin_line) // rows",
    "row = begin_row + line",
)

# The first program of a chunk takes the sums of its rows, in lanes by the columns of elements, and what it adds to the
# sums of tensors, so many rows at a time; each other one sums some columns, one row after another.
REDUCTION = """

@triton.jit
def values_{number}({passed}, i, column, matrix, row, inside):
{values}
    return {names}


@triton.jit
def rows_{number}(partials, {arguments}):
    lines = count // columns
{totals}
    for first in range(0, lines, {rows}):
        line = first + tl.arange(0, {rows})[:, None]
        row, matrix = begin_row + line, begin_matrix + (line + begin_line) // rows
{lanes}
        for left in range(0, columns, {width}):
            column = left + tl.arange(0, {width})[None, :]
            inside = (line < lines) & (column < columns)
            {names} = values_{number}({passed}, line * columns + column, column, matrix, row, inside)
{add}
{after}
{partials}
{of_columns}

@triton.jit
def stage_{number}(
    chunks, table, scalars, steps, partials, stop, TILE: tl.constexpr, PART: tl.constexpr, ALIGNED: tl.constexpr
):
{prologue}
    if tl.program_id(1) == 0:
        rows_{number}(partials, {arguments})
{otherwise}"""

_OF_COLUMNS = """

@triton.jit
def columns_{number}({arguments}):
    lines = count // columns
    column = (tl.program_id(1) - 1) * {width} + tl.arange(0, {width})
    inside = column < columns
    start = begin_line * 0
    while start < lines:
        matrix = begin_matrix + (start + begin_line) // rows
        part = (start + begin_line) % rows // height
        last = tl.minimum(lines, start + rows - (start + begin_line) % rows)
{zeros}
        for line in range(start, last):
            row = begin_row + line
            {names} = values_{number}({passed}, line * columns + column, column, matrix, row, inside)
{add}
        place = (matrix * tl.cdiv(rows, height) + part) * columns + column
{store}
        start = last
"""

# One program works on some matrices of a tensor, one after another: what one loop keeps, the next one reads.
NARROW = """

@triton.jit
def stage_{number}(
    chunks, table, scalars, steps, partials, stop, TILE: tl.constexpr, PART: tl.constexpr, ALIGNED: tl.constexpr
):
{prologue}
    for matrix in range(tl.program_id(1).to(tl.int64), tl.where(count > 0, matrices, 0), tl.num_programs(1)):
{loops}
"""

_COMBINE = """\
for first in range(0, columns, {width}):
    column = first + tl.arange(0, {width})
    total = tl.zeros([{width}], tl.float64)
    for part in range(tl.cdiv(rows, height)):
        place = (matrix * tl.cdiv(rows, height) + part) * columns + column
        left = tl.load({name}_at + place, mask=column < columns, other=0.0)
        total = {added}
    tl.store({name}_at + matrix * tl.cdiv(rows, height) * columns + column, total, mask=column < columns)
tl.debug_barrier()"""


def sides(kernel: Kernel) -> list[str]:
    """The statements that read the sides of a tensor, and where a chunk begins."""
    first = len(kernel.tensors) + len(kernel.beside)
    names = ("matrices", "rows", "columns", "height")
    lines = [f"{name} = tl.load(address + {first + place})" for place, name in enumerate(names)]
    narrow = [f"{name} = {name}.to(tl.int32)" for name in names[1:]]
    begin = ["begin_row = begin // columns", "begin_matrix = begin_row // rows"]
    return [*lines, *begin, "begin_line = (begin_row - begin_matrix * rows).to(tl.int32)", *narrow]


def at(kernel: Kernel, node: Node) -> str:
    """The statement that finds what is kept beside a tensor."""
    name = kernel.name_of[node]
    place = len(kernel.tensors) + [*kernel.beside].index(name)
    memory = "tl.float64" if is_sum(node) else memory_of(kernel.formats.compute, "tl")
    return f"{name}_at = tl.load(address + {place}).to(tl.pointer_type({memory}))"


def reads(kernel: Kernel, stage: Stage) -> list[str]:
    """The statements that read what is known of the rows and columns of a tile."""
    places = {TENSOR: "0", MATRIX: "matrix", OF_ROWS: "row", COLUMNS: "matrix * columns + column"}
    found = []
    for node in stage.given:
        name, place = kernel.name_of[node], places[node.space]
        # Sums are kept in float64, and rounded here.
        rounded = f".to({memory_of(kernel.formats.compute, 'tl')})" if is_sum(node) else ""
        found.append(f"{name}_in = tl.load({name}_at + ({place}) + 0 * i, mask=inside){rounded}")
    return found


def texts(kernel: Kernel, stage: Stage) -> dict[Node, str]:
    """How a pass over elements writes what is kept for rows and columns."""
    return {node: f"{kernel.name_of[node]}_in" for node in stage.given}


# -- passes that reduce ----------------------------------------------------------------------------


def reduction(
    kernel: Kernel, number: int, prologue: Sequence[str], passed: Sequence[str], body: tuple[list[str], list[str]]
) -> str:
    """A pass that takes sums; `body` has the statements for the operands, and their expressions."""
    stage, (lines, formulas) = kernel.stages[number], body
    operands = [*dict.fromkeys(stage.roots)]
    names = [f"value{k}" for k in range(len(operands))]
    lines = [*reads(kernel, stage), *lines]
    lines += [
        f"{name} = tl.where(inside, {formulas[stage.roots.index(x)]}, 0.0).to(tl.float64)"
        for name, x in zip(names, operands, strict=True)
    ]
    along = [r for r in stage.along if r.space is OF_ROWS]
    columns = [r for r in stage.along if r.space is COLUMNS]
    in_lanes = [*stage.reductions, *along]
    count = len(stage.reductions)
    after = [f"totals{k} = {_merged(r, f'totals{k}', f'lanes{k}')}" for k, r in enumerate(stage.reductions)]
    for k, r in enumerate(along, count):
        where = f"{kernel.name_of[r]}_at + begin_row + first + tl.arange(0, {ROWS})"
        whole = f"tl.reduce(lanes{k}, 1, larger)" if kind_of(r).by_size else f"pairwise_rows(lanes{k}, {ROWS}, {LANES})"
        after.append(f"tl.store({where}, {whole}, mask=first + tl.arange(0, {ROWS}) < lines)")
    partials = [
        f"tl.store(partials + tl.program_id(0) * {count} + {k}, {_of_chunk(r, f'totals{k}')})"
        for k, r in enumerate(stage.reductions)
    ]
    beside = [f"{kernel.name_of[r]}_at" for r in stage.along]
    form: dict[str, Any] = {"number": number, "passed": ", ".join(passed), "names": ", ".join(names)}
    form["arguments"] = ", ".join([*passed, "height", *beside])
    zeros = f"tl.zeros([{ROWS}, {LANES}], tl.float64)"
    return REDUCTION.format(
        **form,
        rows=ROWS,
        width=LANES,
        values=indented(lines, 4),
        prologue=indented(prologue, 4),
        totals=indented([f"totals{k} = {zeros}" for k in range(count)], 4),
        lanes=indented([f"lanes{k} = {zeros}" for k in range(len(in_lanes))], 8),
        add=indented([_added(r, f"lanes{k}", operands) for k, r in enumerate(in_lanes)], 12),
        after=indented(after, 8),
        partials=indented(partials, 4),
        of_columns=_of_columns(kernel, columns, operands, form) if columns else "",
        otherwise=f"    else:\n        columns_{number}({form['arguments']})\n" if columns else "",
    )


def _of_columns(kernel: Kernel, columns: Sequence[Node], operands: Sequence[Node], form: dict[str, Any]) -> str:
    sums = {f"sums{k}": r for k, r in enumerate(columns)}
    stores = [f"tl.store({kernel.name_of[r]}_at + place, {s}, mask=inside)" for s, r in sums.items()]
    return _OF_COLUMNS.format(
        **form,
        width=WIDTH,
        zeros=indented([f"{s} = tl.zeros([{WIDTH}], tl.float64)" for s in sums], 8),
        add=indented([_added(r, s, operands) for s, r in sums.items()], 12),
        store=indented(stores, 8),
    )


def _added(r: Node, to: str, operands: Sequence[Node]) -> str:
    kind = kind_of(r)
    term = kind.term.format(*(f"value{operands.index(operand)}" for operand in r.args))
    return f"{to} = larger({to}, tl.{term})" if kind.by_size else f"{to} += {term}"


def _merged(r: Node, totals: str, lanes: str) -> str:
    return f"larger({totals}, {lanes})" if kind_of(r).by_size else f"{totals} + {lanes}"


def _of_chunk(r: Node, totals: str) -> str:
    return f"largest({totals})" if kind_of(r).by_size else f"pairwise(in_order({totals}, {ROWS}), {LANES})"


def _whole(r: Node, totals: str) -> str:
    return f"tl.reduce({totals}, 0, larger)" if kind_of(r).by_size else f"pairwise({totals}, {LANES})"


# -- loops over rows, columns and matrices ---------------------------------------------------------


def narrow(kernel: Kernel, number: int, prologue: Sequence[str], given: dict[Node, str]) -> str:
    """The loops of a stage, over what is kept beside a tensor."""
    stage, kept = kernel.stages[number], {*kernel.kept_before(number)}
    used = {n for loop in stage.narrow for n in walk(loop.roots, into_reductions=False, given=kept)}
    sums = [r for r in kernel.stages[number - 1].along if r.space is COLUMNS] if number else []
    pointers = [at(kernel, node) for node in kernel.beside.values() if node in {*used, *sums} or _is_made(stage, node)]
    names = {n.label for n in used if n.op in LOADS} | {name for loop in stage.narrow for name in loop.stores}
    for name in kernel.tensors:
        if name in names:
            place, memory = [*kernel.tensors].index(name), memory_of(kernel.tensors[name], "tl")
            pointers.append(f"{name}_at = tl.load(address + {place}).to(tl.pointer_type({memory}))")
    lines: list[str] = []
    for r in sums:
        added = "larger(total, left)" if kind_of(r).by_size else "total + left"
        lines += _COMBINE.format(width=WIDTH, name=kernel.name_of[r], added=added).splitlines()
    for loop in stage.narrow:
        lines += [*_loop(kernel, loop, kept, given), "tl.debug_barrier()"]
        kept |= {*loop.values, *loop.reductions}
    return NARROW.format(number=number, prologue=indented([*prologue, *pointers], 4), loops=indented(lines, 8))


def _is_made(stage: Stage, node: Node) -> bool:
    return any(node in (*loop.values, *loop.reductions) for loop in stage.narrow)


def _loop(kernel: Kernel, loop: Narrow, kept: set[Node], numbers: dict[Node, str]) -> list[str]:
    """One loop over what a matrix has, a tile at a time."""
    real = memory_of(kernel.formats.compute, "tl")
    size = {OF_ROWS: "rows", COLUMNS: "columns"}.get(loop.of, "1")
    tile = LANES if loop.reductions else WIDTH
    read = [n for n in walk(loop.roots, into_reductions=False, given=kept) if n in kept or n.op in LOADS]
    found = {node: f"{_name(kernel, node)}_in" for node in read}
    body = [f"{found[node]} = {_value(kernel, node, loop.of, real)}" for node in read]
    named, formulas = assignments(loop.roots, writer(real), numbers | found)
    body += [f"{name} = {text}" for name, text in named]
    texts = dict(zip(loop.roots, formulas, strict=True))
    zeros, after = [], []
    for node in loop.values:
        body.append(f"tl.store({kernel.name_of[node]}_at + place, {texts[node]}, mask=inside)")
    for k, r in enumerate(loop.reductions):
        kind = kind_of(r)
        for j, operand in enumerate(r.args):
            body.append(f"term{j} = tl.where(inside, {texts[operand]}, 0.0).to(tl.float64)")
        term = kind.term.format(*(f"term{j}" for j in range(len(r.args))))
        body.append(f"lanes{k} = larger(lanes{k}, tl.{term})" if kind.by_size else f"lanes{k} += {term}")
        zeros.append(f"lanes{k} = tl.zeros([{LANES}], tl.float64)")
        after.append(f"tl.store({kernel.name_of[r]}_at + matrix, {_whole(r, f'lanes{k}')}.to({real}))")
    body += [f"{name}_out = {texts[root]}" for name, root in loop.stores.items()]
    for name in loop.stores:
        memory = memory_of(kernel.tensors[name], "tl")
        body.append(f"tl.store({name}_at + place, {name}_out.to({memory}), mask=inside)")
    head = [
        f"for first in range(0, {size}, {tile}):",
        f"    i = first + tl.arange(0, {tile})",
        f"    inside = i < {size}",
        f"    place = {'i' if loop.of is TENSOR else f'matrix * {size} + i'}",
    ]
    return [*zeros, *head, *(f"    {line}" for line in body), *after]


def _name(kernel: Kernel, node: Node) -> str:
    return kernel.name_of.get(node) or str(node.label)


def _value(kernel: Kernel, node: Node, within: Space, real: str) -> str:
    of = node.space
    if is_sum(node) and of is COLUMNS:
        place = "matrix * tl.cdiv(rows, height) * columns + i"
    else:
        place = "place" if of is within else "0 * i" if of is TENSOR else "matrix + 0 * i"
    kind = "tl.uint32" if node.kind == "uint" else real
    return f"tl.load({_name(kernel, node)}_at + {place}, mask=inside).to({kind})"
