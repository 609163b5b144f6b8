"""numba source of passes over the rows of tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from textwrap import indent

from neon.engine.beside import is_sum
from neon.engine.program.graph import Node
from neon.engine.program.kernel import LANES, Kernel, Stage
from neon.engine.program.kernel import ROWS as ROWS_OF_TOTALS
from neon.engine.program.reductions import kind_of
from neon.engine.program.spaces import COLUMNS, MATRIX, ROWS, TENSOR

# A pass over the elements of a chunk, which is of whole rows.
UPDATE = """\
        for row in range(start // columns, (start + count) // columns):
{row}
{loop}"""

# The sums of a row are taken in lanes, by the columns of elements; those of a column one row after another. What a
# chunk adds to that of its tensor are the lanes of every 32nd row, these one after another. Lanes are added pairwise.
# Sums of columns, which are in memory, have a loop of their own: beside stores there lanes would not stay in registers.
REDUCTION = """\
{no_totals}        rest = columns % {lanes}
        for row in range(start // columns, (start + count) // columns):
{row}
{no_lanes}            for first in range(0, columns - rest, {lanes}):
{row_arrays}
                for i in range({lanes}):
{row_body}
{row_columns}            first = columns - rest
{rest_arrays}
            for i in range(rest):
{rest_body}
{rest_columns}{add_lanes}{partial}"""


def sides(kernel: Kernel) -> list[str]:
    """The statements that read the sides of a tensor."""
    first = len(kernel.tensors) + len(kernel.beside)
    names = ("matrices", "rows", "columns", "height")
    return [f"{name} = address[{first + place}]" for place, name in enumerate(names)]


def at(kernel: Kernel, node: Node, first: str = "") -> str:
    """The statement that finds what is kept beside a tensor, from a value on."""
    name, memory = kernel.name_of[node], memory_beside(node)
    place = len(kernel.tensors) + [*kernel.beside].index(name)
    offset = f" + {first} * {8 if is_sum(node) else kernel.formats.compute.itemsize}" if first else ""
    return f"{name}_at = pointer(address[{place}]{offset}, {memory})"


def memory_beside(node: Node) -> str:
    if not is_sum(node):
        return "real"
    return "np.uint64" if kind_of(node).by_size else "np.float64"


def read(kernel: Kernel, node: Node, place: str) -> str:
    """What is kept beside a tensor, as a value; sums are rounded here, once."""
    text = f"{kernel.name_of[node]}_at[{place}]"
    if is_sum(node):
        return f"real(from_bits64({text}))" if kind_of(node).by_size else f"real({text})"
    return text


def before_a_row(kernel: Kernel, stage: Stage, arrays: Callable[[str], list[str]], *, index: bool) -> list[str]:
    """What is known of a row before its elements are worked on."""
    spaces = {node.space for node in stage.given}
    lines = ["place = row * columns"]
    lines += ["matrix = row // rows"] if spaces & {COLUMNS, MATRIX} or of_columns(stage) else []
    lines += [f"first = place + address[{kernel.width - 1}]"] if index else []
    for node in stage.given:
        name = kernel.name_of[node]
        lines.append(at(kernel, node, "matrix * columns" if node.space is COLUMNS else ""))
        if node.space is not COLUMNS:
            lines.append(f"{name}_in = {read(kernel, node, _PLACES[node.space])}")
    return lines + arrays("place")


_PLACES = {TENSOR: "0", MATRIX: "matrix", ROWS: "row"}


def reads_of_columns(kernel: Kernel, stage: Stage, first: str = "") -> list[str]:
    """The statements that read what is known of the column of an element."""
    nodes = [node for node in stage.given if node.space is COLUMNS]
    return [f"{kernel.name_of[node]}_in = {read(kernel, node, f'{first}i')}" for node in nodes]


def texts(kernel: Kernel, stage: Stage) -> dict[Node, str]:
    """How a pass over elements writes what is kept for rows and columns."""
    return {node: f"{kernel.name_of[node]}_in" for node in stage.given}


def of_columns(stage: Stage) -> list[Node]:
    return [reduction for reduction in stage.along if reduction.space is COLUMNS]


# What numba writes of a sum: no terms, one term more, all lanes of it; and how it adds an element's to a lane.
Sums = Callable[[Node], tuple[str, str, str]]
Added = Callable[[Node, str, Mapping[Node, str]], str]


def reduction(
    kernel: Kernel,
    stage: Stage,
    values: Mapping[Node, str],
    lines: list[str],
    arrays: Callable[[str], list[str]],
    sums: Sums,
    added: Added,
) -> str:
    """A pass that takes sums of `values`, which are known after `lines` for each element."""
    lanes, totals = lanes_by_sum(stage), _totals(stage)
    kept = {value: f"{name}[i]" for value, name in kept_of(stage).items()}
    body = [*reads_of_columns(kernel, stage, "first + "), *lines]
    body += [added(r, f"{name}[i]", values) for r, name in lanes.items()]
    body += [f"{place} = {values[value]}" for value, place in kept.items()]
    columns = [added(r, f"{kernel.name_of[r]}_at[first + i]", kept) for r in of_columns(stage)]
    zeros = {name: sums(r)[0].format(f"{name}[lane]") for r, name in (*lanes.items(), *totals.items())}
    no_totals = [f"for lane in range({ROWS_OF_TOTALS * LANES}):", *(f"    {zeros[name]}" for name in totals.values())]
    return REDUCTION.format(
        lanes=LANES,
        no_totals=_block(no_totals, 8) if totals else "",
        row=indent(
            "\n".join([*before_a_row(kernel, stage, lambda _: [], index=False), *_begun(kernel, stage, sums)]), " " * 12
        ),
        no_lanes=_block(for_lanes([zeros[name] for name in lanes.values()]), 12) if lanes else "",
        row_arrays=indent("\n".join(arrays("(place + first)")), " " * 16),
        row_body=indent("\n".join(body), " " * 20),
        row_columns=_block([f"for i in range({LANES}):", *(f"    {line}" for line in columns)], 16) if columns else "",
        rest_arrays=indent("\n".join(arrays("(place + first)")), " " * 12),
        rest_body=indent("\n".join(body), " " * 16),
        rest_columns=_block(["for i in range(rest):", *(f"    {line}" for line in columns)], 12) if columns else "",
        add_lanes=_block(_of_row(kernel, stage, lanes, totals, sums), 12),
        partial=indent("\n".join(_of_chunk(stage, totals, sums)), " " * 8),
    )


def _begun(kernel: Kernel, stage: Stage, sums: Sums) -> list[str]:
    """Where the sums of columns are, which begin with the first row of a matrix in a chunk."""
    columns = of_columns(stage)
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
        lines += for_lanes([sums(r)[1].format(f"{t}[turn + lane]", f"{lanes[r]}[lane]") for r, t in totals.items()])
    return lines


def _of_chunk(stage: Stage, totals: dict[Node, str], sums: Sums) -> list[str]:
    """What a chunk adds to the sums of its tensor; of ones it is a count."""
    if not stage.reductions:
        return []
    lines = [f"for turn in range({LANES}, {ROWS_OF_TOTALS * LANES}, {LANES}):"] if totals else []
    added = [sums(r)[1].format(f"{name}[lane]", f"{name}[turn + lane]") for r, name in totals.items()]
    lines += [f"    {line}" for line in for_lanes(added)] if totals else []
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


def lanes_by_sum(stage: Stage) -> dict[Node, str]:
    """The lanes of each sum that is taken in lanes, by name."""
    if stage.narrow:
        found = [r for loop in stage.narrow for r in loop.reductions]
    else:
        found = [*_totals(stage), *(r for r in stage.along if r.space is ROWS)]
    return {r: f"lanes{k}" for k, r in enumerate(found)}


def kept_of(stage: Stage) -> dict[Node, str]:
    """The values of 64 elements that are kept for the sums of columns, by name."""
    values = dict.fromkeys(value for r in of_columns(stage) for value in r.args)
    return {value: f"kept{k}" for k, value in enumerate(values)}


def for_lanes(lines: Sequence[str]) -> list[str]:
    return [f"for lane in range({LANES}):", *(f"    {line}" for line in lines)]


def _block(lines: Sequence[str], by: int) -> str:
    return indent("\n".join(lines), " " * by) + "\n" if lines else ""


def lanes_of(stage: Stage) -> list[tuple[str, int, Node]]:
    """The lanes that a stage needs on the stack, by name, with how many there are and the reduction of each."""
    totals = {} if stage.narrow else _totals(stage)
    return [
        *((name, LANES, r) for r, name in lanes_by_sum(stage).items()),
        *((name, ROWS_OF_TOTALS * LANES, r) for r, name in totals.items()),
    ]
