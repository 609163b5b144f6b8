"""Triton source of the sums of a pass that nothing reads: each program keeps its own, for whoever looks."""

from __future__ import annotations

from collections.abc import Mapping

from neon.engine.program.formats.blocks import BLOCK
from neon.engine.program.graph import Node
from neon.engine.program.kernel import Kernel, Stage
from neon.engine.program.printer import memory_of
from neon.engine.program.reductions import kind_of


def names(stage: Stage) -> list[str]:
    """What the sums are called, in their order."""
    return [f"seen{k}" for k in range(len(stage.seen))]


def begun(kernel: Kernel, stage: Stage) -> list[str]:
    """The statements before the first tile."""
    shape = f"[TILE // {BLOCK}, {BLOCK}]" if kernel.scales else "[TILE]"
    real = memory_of(kernel.formats.compute, "tl")
    kinds = ["tl.float64" if not (kind_of(r).counts or kind_of(r).by_size) else real for r in stage.seen]
    return [f"{name} = tl.zeros({shape}, {kind})" for name, kind in zip(names(stage), kinds, strict=True)]


def added(stage: Stage, texts: Mapping[Node, str]) -> list[str]:
    """The statements that add the terms of a tile, given its operands."""
    lines = []
    for name, r in zip(names(stage), stage.seen, strict=True):
        kind = kind_of(r)
        none = "False" if kind.counts else "0.0"
        operands = [f"tl.where(inside, {texts[operand]}, {none})" for operand in r.args]
        if kind.by_size:
            lines.append(f"{name} = larger({name}, tl.{kind.term.format(*operands)})")
        elif kind.counts:
            lines.append(f"{name} += tl.where({kind.term.format(*operands)}, 1.0, 0.0)")
        else:
            lines.append(f"{name} += {kind.term.format(*(f'{operand}.to(tl.float64)' for operand in operands))}")
    return lines


def ended(kernel: Kernel, stage: Stage) -> list[str]:
    """The statements after the last tile: a line for each program of a chunk."""
    if not stage.seen:
        return []
    lines = [f"place = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)) * {len(stage.seen)}"]
    for k, (name, r) in enumerate(zip(names(stage), stage.seen, strict=True)):
        flat = f"tl.reshape({name}, [TILE])" if kernel.scales else name
        whole = f"tl.reduce({flat}, 0, larger)" if kind_of(r).by_size else f"tl.sum({flat}, 0)"
        lines.append(f"tl.store(partials + place + {k}, {whole}.to(tl.float64))")
    return lines
