"""numba source of the loops over elements, and of the sums in them that nothing reads.

Where there are such sums, elements are worked on in groups, each element in a lane. What is stored is put into lanes
too, and from there into memory, and what makes no whole group has sums of its own: so registers can hold all lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import indent

import torch

from neon.engine.program.graph import Node
from neon.engine.program.kernel import Kernel, Stage, Sweep
from neon.engine.program.printer import memory_of
from neon.engine.program.reductions import kind_of

LANES = 8

_GROUPS = """\
rest = ({end} - {first}) % {lanes}
for group in range({first}, {end} - rest, {lanes}):
    for lane in range({lanes}):
        i = group + lane
{lines}
{stores}
for i in range({end} - rest, {end}):
{rest}"""


def loop(
    kernel: Kernel,
    stage: Stage,
    sweep: Sweep,
    places: tuple[str, str],
    lines: Sequence[str],
    counted: Sequence[str] = (),
) -> str:
    """The loop of a sweep over the elements between two places: `lines` compute what is stored, and what is summed."""
    memory = {name: memory_of(kernel.tensors[name], "np") for name in sweep.stores}
    stores = [f"{name}_at[i] = {kind}({name}_out)" for name, kind in memory.items()]
    first, end = places
    if not sweep.seen:
        through = end if first == "0" else f"{first}, {end}"
        return f"for i in range({through}):\n{_indented([*lines, *stores, *counted] or ['pass'], 4)}"
    kept = [f"{name}_kept[lane] = {kind}({name}_out)" for name, kind in memory.items()]
    values = {node: f"look{k}" for k, node in enumerate(sweep.seen)}
    return _GROUPS.format(
        first=first,
        end=end,
        lanes=LANES,
        lines=_indented([*lines, *kept, *_added(kernel, stage, values, "seen{}[lane]"), *counted], 8),
        stores=_indented([f"put({name}_at, group, {name}_kept, {LANES})" for name in memory], 4),
        rest=_indented([*lines, *_added(kernel, stage, values, "more{}"), *stores, *counted], 4),
    )


def locals_of(kernel: Kernel, stage: Stage) -> str:
    """The lanes on the stack."""
    if not stage.seen:
        return ""
    found = {f"seen{k}": _memory(kernel, r) for k, r in enumerate(stage.seen)}
    stored = [name for sweep in stage.sweeps if sweep.seen for name in sweep.stores]
    found |= {f"{name}_kept": memory_of(kernel.tensors[name], "np") for name in stored}
    return "".join(f"    {name} = local({LANES}, {memory})\n" for name, memory in found.items())


def begun(kernel: Kernel, stage: Stage) -> list[str]:
    """The statements before the first element of a chunk."""
    none = {k: f"{_memory(kernel, r)}(0)" for k, r in enumerate(stage.seen)}
    lanes = [f"    seen{k}[lane] = {zero}" for k, zero in none.items()]
    return [*(f"more{k} = {zero}" for k, zero in none.items()), f"for lane in range({LANES}):", *lanes] if none else []


def ended(kernel: Kernel, stage: Stage) -> list[str]:
    """The statements after the last element of a chunk."""
    lines = [f"partials = pointer(at[5] + chunk * {8 * len(stage.seen)}, np.float64)"] if stage.seen else []
    for k, r in enumerate(stage.seen):
        if kind_of(r).by_size:
            whole = f"select(more{k} < most{k}, most{k}, more{k})"
            lines.append(f"most{k} = largest(seen{k}, {LANES})")
            lines.append(f"partials[{k}] = np.float64(from_{_bits(kernel)}({whole}))")
        else:
            lines += [f"total{k} = np.float64(more{k})", f"for lane in range({LANES}):"]
            lines += [f"    total{k} += np.float64(seen{k}[lane])", f"partials[{k}] = total{k}"]
    return lines


def _added(kernel: Kernel, stage: Stage, values: Mapping[Node, str], to: str) -> list[str]:
    """The statements that add the terms of an element."""
    lines = []
    for k, r in enumerate(stage.seen):
        total, kind, operands = to.format(k), kind_of(r), [values[operand] for operand in r.args]
        if kind.by_size:
            lines.append(f"size{k} = {_bits(kernel)}({kind.term.format(*operands)})")
            lines.append(f"{total} = select({total} < size{k}, size{k}, {total})")
        elif kind.counts:
            one = "real(1.0)"
            lines.append(f"{total} = select({kind.term.format(*operands)}, {total} + {one}, {total})")
        else:
            a, _, b = kind.term.format(*(f"np.float64({operand})" for operand in operands)).partition(" * ")
            lines.append(f"{total} = multiply_add({a}, {b}, {total})")
    return lines


def _memory(kernel: Kernel, r: Node) -> str:
    """What a sum is kept in: counts of the elements of a lane are exact in any of them."""
    if kind_of(r).by_size:
        return "np.uint64" if kernel.formats.compute == torch.float64 else "np.uint32"
    return memory_of(kernel.formats.compute, "np") if kind_of(r).counts else "np.float64"


def _bits(kernel: Kernel) -> str:
    return "bits64" if kernel.formats.compute == torch.float64 else "bits"


def _indented(lines: Sequence[str], by: int) -> str:
    return indent("\n".join(lines), " " * by)
