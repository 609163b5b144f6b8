"""numba source of updates whose states have a scale for each block of elements."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from textwrap import indent
from typing import NamedTuple

from neon.engine.backends import numba_seen
from neon.engine.program.formats.blocks import BLOCK
from neon.engine.program.graph import Node
from neon.engine.program.kernel import Kernel, Stage, Sweep

# Values and their peaks first, which decide the scales; then the codes.
_UPDATE = """\
        for block in range(0, count, {block}):
            end = min(count, block + {block})
{scales}
{sweeps}"""


class Words(NamedTuple):
    """How numba writes the elements of a sweep.

    `counted` prints what it counts, from an index on: before, by what names, and after each element. `body` prints
    values given texts, `formulas` roots; `named` names what a sweep stores, of its formulas.
    """

    counted: Callable[[Sweep, str], tuple[list[str], dict[Node, str], list[str]]]
    body: Callable[[Sweep, dict[Node, str]], tuple[list[str], list[str]]]
    formulas: Callable[[Iterable[Node], dict[Node, str]], tuple[list[str], list[str]]]
    named: Callable[[Sweep, Sequence[str]], list[str]]


def source(kernel: Kernel, stage: Stage, numbers: dict[Node, str], of_blocks: list[str], words: Words) -> str:
    """The loops over blocks, and over the elements of each; `of_blocks` reads what is one number for a block."""
    texts = {value: f"value{k}[i - block]" for k, value in enumerate(stage.sweeps[0].values)}
    texts |= {peak: f"from_bits(peak{k})" for k, peak in enumerate(stage.peaks)}
    sweeps = []
    for sweep in stage.sweeps:
        before, counters, after_each = words.counted(sweep, "add32(word(first), word(block))")
        given = numbers | {node: texts[node] for node in sweep.given} | counters
        lines, formulas = words.body(sweep, given)
        lines += words.named(sweep, formulas)
        kept = formulas[len(sweep.stores) : len(sweep.stores) + len(sweep.values)]
        lines += [f"new{k} = {text}" for k, text in enumerate(kept)]
        for k, peak in enumerate(stage.peaks if sweep.values else ()):
            new = f"new{sweep.values.index(peak.args[0])}"
            lines.append(f"bits{k} = bits({f'abs({new})' if peak.label == 'signed' else new})")
            lines.append(f"peak{k} = select(peak{k} < bits{k}, bits{k}, peak{k})")
        lines += [f"value{k}[i - block] = new{k}" for k in range(len(kept))]
        loop = indent(numba_seen.loop(kernel, stage, sweep, ("block", "end"), lines, after_each), " " * 12)
        after = [
            f"{name}_at[block // {BLOCK}] = {words.formulas([root], given)[1][0]}"
            for name, root in sweep.of_block.items()
        ]
        sweeps += [*_lines(before), loop, *_lines(after)]
    peaks = [f"peak{k} = word(0)" for k in range(len(stage.peaks))]
    return _UPDATE.format(block=BLOCK, scales="\n".join(_lines([*of_blocks, *peaks])), sweeps="\n".join(sweeps))


def _lines(lines: Iterable[str]) -> list[str]:
    return [indent(line, " " * 12) for line in lines]
