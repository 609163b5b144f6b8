"""What each rule keeps and moves, what its step takes, and how it learns digits: the table of docs/rules.md.

    python benchmarks/rules.py                       # all rules, two threads; the table is printed
    python benchmarks/rules.py --only NAdam,RAdam    # some
    python benchmarks/rules.py --store               # written into docs/rules.md, its curves into docs/rules.svg

A step is over sixteen float32 tensors of 1024×1024, neon's AdamW and the rule in turns: the median over rounds of their
ratio. The digits are those of a plain comparison, 20 epochs at the rates of `neon compare --every`.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numba
import torch

from neon.commands.bench.timing import Contender, interleaved
from neon.commands.compare.default_optimizers import every_optimizer
from neon.commands.figures import BLUE, dress, save_figure
from neon.commands.optimizer_text import parse_optimizer
from neon.compare import Comparison, Result, Settings, digits
from neon.engine.program.lowering import lower
from neon.engine.program.slots import Formats
from neon.engine.tensors.storage import AS_COMPUTED
from neon.optimizers import Optimizer

PAGE = Path(__file__).parent.parent / "docs" / "rules.md"
BEGIN, END = "<!-- measured: benchmarks/rules.py -->", "<!-- end -->"
WIDE = 5  # panels in a row of the figure
COLUMNS = ("optimizer", "kept", "moved", "step", "5 epochs", "20 epochs")


def kernel_of(optimizer: Optimizer) -> Any:
    """What a float32 matrix is stepped by."""
    program = optimizer.settings(optimizer.group()).program
    weight = torch.empty(64, 64)
    return lower(program, Formats(torch.float32, torch.float32, states_of(program, weight)))


def states_of(program: Any, weight: torch.Tensor) -> tuple[torch.dtype, ...]:
    return tuple(AS_COMPUTED.dtype_of(name, program, weight) for name in program.states)


def contender(optimizer: Optimizer, count: int, side: int) -> Contender:
    """A step over large tensors."""
    generator = torch.Generator().manual_seed(3)
    params = [torch.nn.Parameter(torch.randn(side, side, generator=generator)) for _ in range(count)]
    for p in params:
        p.grad = torch.randn(side, side, generator=generator)
    return Contender(optimizer.attach(params).step)


def row(text: str, result: Result, given: argparse.Namespace) -> list[str]:
    """A line of the table."""
    optimizer = parse_optimizer(text).build()
    cells = [f"`{text}`"]
    if optimizer._optimizers_by_key is None:
        kernel = kernel_of(optimizer)
        kept = sum(slot.dtype.itemsize for slot in kernel.slots if slot.space.name == "element")
        both = {"AdamW": contender(parse_optimizer("AdamW()").build(), given.tensors, given.side)}
        both["rule"] = contender(optimizer, given.tensors, given.side)
        turns, _ = interleaved(both, given.rounds)
        seconds = [[turn.seconds for turn in turns[who]] for who in both]
        share = statistics.median(rule / adamw for adamw, rule in zip(*seconds, strict=True))
        cells += [str(kept), str(kernel.bytes_moved), f"{share:.2f}"]
    else:
        cells += ["", "", ""]
    return [*cells, *(f"{100 * result.accuracy[epochs - 1]:.1f} %" for epochs in (5, 20))]


def draw(texts: list[str], results: list[Result]) -> Any:
    """A small panel for each optimizer: its validation accuracy by epoch, above AdamW's in grey."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-len(texts) // WIDE)
    figure = Figure(figsize=(11.0, 1.35 * rows), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, WIDE, sharex=True, sharey=True, squeeze=False).flatten()
    known = next(r.accuracy for text, r in zip(texts, results, strict=True) if text.startswith("AdamW("))
    for axes, text, result in zip(panels, texts, results, strict=False):
        epochs = range(1, 1 + len(known))
        axes.plot(epochs, known, color="#bbbbbb", lw=1.2)
        axes.plot(epochs, result.accuracy, color=BLUE, lw=1.4)
        name, inner = re.match(r"(\w+)\((?:([A-Z]\w+)\()?", text).groups()  # type: ignore[union-attr]
        dress(axes, f"{name}({inner})" if inner else "with nesterov=True" if "nesterov=True" in text else name)
        axes.title.set_fontsize(7.5)
        axes.set_ylim(0.8, 1.0)
        axes.tick_params(labelsize=7)
    for axes in panels[len(texts) :]:
        axes.set_axis_off()
    return figure


def main(given: argparse.Namespace) -> None:
    torch.set_num_threads(given.threads)
    numba.set_num_threads(given.threads)
    texts = [text for text in every_optimizer() if not given.only or text.split("(")[0] in given.only.split(",")]
    specs = [parse_optimizer(text) for text in texts]
    with tempfile.TemporaryDirectory() as folder:
        results = Comparison(digits(), specs, Settings(epochs=20, batch_size=64, seed=0), Path(folder)).run()
    lines = []
    for text, result in zip(texts, results, strict=True):
        lines.append(f"| {' | '.join(row(text, result, given))} |")
        print(lines[-1], flush=True)
    if given.store:
        table = "\n".join([f"| {' | '.join(COLUMNS)} |", "| --- |" + " ---: |" * (len(COLUMNS) - 1), *lines])
        page = PAGE.read_text(encoding="utf-8")
        write = partial(re.sub, f"(?s)({re.escape(BEGIN)}).*?({re.escape(END)})")
        shown = [place for place, text in enumerate(texts) if not text.startswith("MultiOptimizer")]
        save_figure([PAGE.with_suffix(".svg")], lambda: draw([texts[i] for i in shown], [results[i] for i in shown]))
        PAGE.write_text(write(lambda found: f"{found[1]}\n\n{table}\n\n{found[2]}", page), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="names of classes, separated by commas")
    parser.add_argument("--store", action="store_true", help="write the table into docs/rules.md")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tensors", type=int, default=16)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15)
    sys.exit(main(parser.parse_args()))
