"""The numbers of a kernel as Triton source: what depends on numbers alone is computed on the device too."""

from __future__ import annotations

from neon.engine.backends.triton_writer import indented, writer
from neon.engine.program.graph import Node, walk
from neon.engine.program.kernel import Kernel
from neon.engine.program.printer import assignments, inline, memory_of

# What depends on numbers alone, in float64, a row for each lane. `at` is where a sum or a count lies.
_NUMBERS = """

@triton.jit(do_not_specialize=["rows"])
def numbers_{number}(numbers, sums, counts, steps, scalars, {kept}rows, ROWS: tl.constexpr):
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
    stores_step = (last and counts_steps(kernel)) or stage.random
    if not stage.scalars and not stores_step and not (last and kernel.numbers):
        return ""
    names, reductions = numbers_of(kernel), reductions_of(kernel)
    kept = kernel.numbers if last else {}
    computed = [*stage.scalars, *kept.values()]
    lines, known = [], {}
    for node in walk(computed, into_reductions=False):
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
                f"{known[node]} = tl.load(at, mask=inside)  # {inline(node, kernel.names)}",
            ]
    if counts_steps(kernel):  # the number of this update
        lines.append("at = tl.load(counts + row, mask=inside, other=0).to(tl.pointer_type(tl.float64))")
        lines.append("step = tl.load(at, mask=inside) + 1.0")
        lines += ["tl.store(steps + row, step, mask=inside)"] if stores_step else []
    named, formulas = assignments(computed, writer("tl.float64"), known)
    lines += [f"{name} = {text}" for name, text in named]
    memory = memory_of(kernel.formats.compute, "tl")
    scalars, new = formulas[: len(stage.scalars)], formulas[len(stage.scalars) :]
    lines += [
        f"tl.store(scalars + row * {len(scalars)} + {column}, {text}.to({memory}), mask=inside)"
        for column, text in enumerate(scalars)
    ]
    # Each is written by one row; a step that is left out changes none.
    lines += ["writes = row < tl.where(tl.load(stop) == 0.0, rows, 0)"] if kept else []
    for line, (name, text) in enumerate(zip(kept, new, strict=True)):
        lines.append(f"at = tl.load(kept + {line} * rows + row, mask=writes, other=0)")
        lines.append(f"tl.store(at.to(tl.pointer_type(tl.float64)), {text}, mask=at != 0)  # {name}")
    return _NUMBERS.format(number=number, kept="kept, stop, " if kept else "", body=indented(lines, 4))
