"""The numbers of a kernel as Triton source: what depends on numbers alone is computed on the device too."""

from __future__ import annotations

from neon.engine.backends.triton_writer import indented, writer
from neon.engine.program.graph import Node, walk
from neon.engine.program.kernel import Kernel
from neon.engine.program.printer import assignments, inline, memory_of

# What depends on numbers alone, in float64, a row for each lane. `at` is where a sum or a count lies.
_NUMBERS = """

@triton.jit(do_not_specialize=["rows"])
def numbers_{number}(numbers, sums, counts, steps, scalars, rows, ROWS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < rows
{body}
"""


def numbers_of(kernel: Kernel) -> list[str]:
    """The lines of the table of numbers, a column for each row of scalars; steps are counted apart."""
    return [name for name in kernel.program.numbers if name != "step"]


def reductions_of(kernel: Kernel) -> list[Node]:
    """The lines of the table of addresses of sums."""
    return [reduction for stage in kernel.stages for reduction in stage.reductions]


def counts_steps(kernel: Kernel) -> bool:
    """Whether it has to know which update this is."""
    return kernel.random or "step" in kernel.program.numbers


def numbers_source(kernel: Kernel, number: int) -> str:
    """The function that computes the numbers of a stage, or nothing where it reads none."""
    stage, last = kernel.stages[number], number == len(kernel.stages) - 1
    if not stage.scalars and not (last and counts_steps(kernel)):
        return ""
    names, reductions = numbers_of(kernel), reductions_of(kernel)
    lines, known = [], {}
    for node in walk(stage.scalars, into_reductions=False):
        if node.op == "scalar" and node.label != "step":
            known[node] = f"n{names.index(node.label)}"
            place = f"numbers + {names.index(node.label)} * rows + row"
            lines.append(f"{known[node]} = tl.load({place}, mask=inside)  # {node.label}")
        elif node.op == "scalar":
            known[node] = "step"
        elif node in reductions:
            column = reductions.index(node)
            known[node] = f"sum{column}"
            lines += [
                f"at = tl.load(sums + {column} * rows + row, mask=inside, other=0).to(tl.pointer_type(tl.float64))",
                f"{known[node]} = tl.load(at, mask=inside)  # {inline(node)}",
            ]
    if counts_steps(kernel):  # the number of this update
        lines.append("at = tl.load(counts + row, mask=inside, other=0).to(tl.pointer_type(tl.float64))")
        lines.append("step = tl.load(at, mask=inside) + 1.0")
        lines += ["tl.store(steps + row, step, mask=inside)"] if last else []
    named, formulas = assignments(stage.scalars, writer("tl.float64"), known)
    lines += [f"{name} = {text}" for name, text in named]
    memory = memory_of(kernel.formats.compute, "tl")
    lines += [
        f"tl.store(scalars + row * {len(formulas)} + {column}, {text}.to({memory}), mask=inside)"
        for column, text in enumerate(formulas)
    ]
    return _NUMBERS.format(number=number, body=indented(lines, 4))
