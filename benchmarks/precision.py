"""What a format of weights or states costs in precision and in memory, for every rule.

    python benchmarks/precision.py    # a minute

Errors: every rule follows one sequence of gradients in float64 and in each format; the error is the root mean
square of what the displacements of the weights differ by, relative to that of the displacements in float64.
The share is how much of the way in float64 was gone: the displacement projected on that in float64. Errors
that are random leave it at 1.
The gradients are those of a noisy quadratic at the weights of the float64 run, over three decades of
curvature and of noise, of numbers that every format holds. So no weight is led back to where it should be:
errors add up as they do not in training, of which benchmarks/low_precision_training.py is the measure.

Writes tables, and results/precision.json and .svg.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from neon.commands import machine
from neon.commands.bench.torch_peers import neon_optimizer
from neon.commands.figures import BLUE, GREEN, INK, PURPLE, SKY, VERMILION, dress, new_figure, save_figure
from neon.commands.library import exported_rules
from neon.engine.program import formats
from neon.engine.program.formats.blocks import BLOCK, SmallFloat
from neon.optimizers import Adam

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ELEMENTS = 8192  # as many as have their states in the format that was asked for
STEPS = (1, 100, 10_000)


@dataclass(frozen=True)
class Format:
    """A format of the weights, and the options of a rule that go with it; a colour and a marker in the figure."""

    dtype: torch.dtype
    colour: str
    marker: str
    options: Mapping[str, Any] = field(default_factory=dict)


FORMATS = {
    "float32": Format(torch.float32, INK, "|"),
    "bfloat16, to nearest": Format(torch.bfloat16, VERMILION, "o"),
    "bfloat16, at random": Format(torch.bfloat16, VERMILION, "x", {"stochastic_round": True}),
    "bfloat16, split": Format(torch.bfloat16, VERMILION, "D", {"master": "split"}),
    "float16, to nearest": Format(torch.float16, BLUE, "o"),
    "float16, at random": Format(torch.float16, BLUE, "x", {"stochastic_round": True}),
    "float32, states of 16 bits": Format(torch.float32, GREEN, "s", {"state_dtype": "bfloat16"}),
    "float32, states of 8 bits": Format(torch.float32, PURPLE, "^", {"state_dtype": "int8"}),
}
JOINED = "bfloat16, split, with its low bits"
COLUMNS = {**FORMATS, JOINED: Format(torch.bfloat16, SKY, "_")}
SMALLEST = {
    "bfloat16, at random, states of 8 bits": Format(
        torch.bfloat16, INK, "*", {"stochastic_round": True, "state_dtype": "int8"}
    ),
    "bfloat16, split, states of 8 bits": Format(torch.bfloat16, INK, "*", {"master": "split", "state_dtype": "int8"}),
}


def held_by_all(x: Tensor) -> Tensor:
    """The nearest float64 numbers that bfloat16 and float16 both hold."""
    return x.bfloat16().half().double()


def errors(rule: str, steps: Sequence[int]) -> dict[str, dict[str, list[float]]]:
    """The relative error of a rule in each format after so many steps, and the share of the way that it went."""
    random = torch.Generator().manual_seed(0)
    start = held_by_all(torch.randn(ELEMENTS, generator=random) * 0.1)
    minimum = torch.randn(ELEMENTS, generator=random).double() * 0.1
    curvature = 10.0 ** (-3 * torch.rand(ELEMENTS, generator=random).double())
    noise = 0.1 * 10.0 ** (-3 * torch.rand(ELEMENTS, generator=random))

    exact = nn.Parameter(start.clone())
    weights = {name: nn.Parameter(start.to(form.dtype)) for name, form in FORMATS.items()}
    optimizers = [neon_optimizer(rule).attach([exact])]
    optimizers += [neon_optimizer(rule, **FORMATS[name].options).attach([w]) for name, w in weights.items()]
    params = [exact, *weights.values()]
    found: dict[str, dict[str, list[float]]] = {name: {"error": [], "share": []} for name in COLUMNS}
    for step in range(1, max(steps) + 1):
        drawn = torch.randn(ELEMENTS, generator=random).mul_(noise)
        gradient = held_by_all(curvature * (exact.detach() - minimum) + drawn)
        by_dtype = {dtype: gradient.to(dtype) for dtype in {p.dtype for p in params}}
        for param, optimizer in zip(params, optimizers, strict=True):
            param.grad = by_dtype[param.dtype]
            optimizer.step()
        if step in steps:
            way = exact.detach() - start
            values = {name: w.detach().double() for name, w in weights.items()}
            split = weights["bfloat16, split"]
            values[JOINED] = joined(
                split, optimizers[list(weights).index("bfloat16, split") + 1].state[split]["low_bits"]
            )
            for name, value in values.items():
                gone = value - start
                found[name]["error"].append(float((gone - way).norm() / way.norm()))
                found[name]["share"].append(float(gone @ way / (way @ way)))
    return found


def joined(weight: Tensor, low_bits: Tensor) -> Tensor:
    """The float32 numbers that split weights stand for: the weight's bits, then the low bits, which have a sign."""
    high = weight.detach().view(torch.int16).int() << 16
    return (high + low_bits.view(torch.int16).int()).view(torch.float32).double()


def decoded(state: Tensor, scales: Tensor) -> Tensor:
    """The numbers that a state of one byte stands for, where no sign is kept."""
    form, code = formats.FORMATS[state.dtype], state.int()
    assert isinstance(form, SmallFloat)
    exponent = (code >> form.mantissa) - (form.largest_code >> form.mantissa)
    value = (1 + (code & (1 << form.mantissa) - 1) / (1 << form.mantissa)) * 2.0**exponent
    return torch.where(code == 0, 0.0, value) * scales.repeat_interleave(BLOCK)


def second_moments() -> dict[str, float]:
    """Adam's mean of squares after gradients have become a tenth, over what it is in float64; by how it is rounded."""
    random = torch.Generator().manual_seed(0)
    ways: dict[str, tuple[torch.dtype, Callable[[Any], torch.optim.Optimizer]]] = {
        "float64": (torch.float64, Adam().attach),
        "bfloat16, to nearest (torch.optim.Adam)": (torch.bfloat16, torch.optim.Adam),
        "bfloat16, at random": (torch.float32, Adam(state_dtype="bfloat16").attach),
        "8 bits, at random": (torch.float32, Adam(state_dtype="int8").attach),
    }
    params = {name: nn.Parameter(torch.zeros(ELEMENTS, dtype=dtype)) for name, (dtype, _) in ways.items()}
    optimizers = {name: make([params[name]]) for name, (_, make) in ways.items()}
    for step in range(10_000):
        gradient = held_by_all(torch.randn(ELEMENTS, generator=random) * (1.0 if step < 5000 else 0.1))
        for name, param in params.items():
            param.grad = gradient.to(param.dtype)
            optimizers[name].step()
    means: dict[str, float] = {}
    for name, param in params.items():
        state = optimizers[name].state[param]
        moment = state["exp_avg_sq"]
        moment = decoded(moment, state["scales"]["exp_avg_sq"]) if moment.dtype == torch.uint8 else moment
        means[name] = float(moment.double().mean())
    return {name: mean / means["float64"] for name, mean in means.items()}


def bytes_per_weight(rule: str, form: Format) -> dict[str, float]:
    """Bytes of the tensors that are kept between steps, for each weight of a large tensor."""
    param = nn.Parameter(torch.zeros(1024, 1024, dtype=form.dtype))
    param.grad = torch.ones_like(param)
    optimizer = neon_optimizer(rule, **form.options).attach([param])
    optimizer.step()
    return {"weight": param.element_size(), "states": tensor_bytes(optimizer.state[param]) / param.numel()}


def tensor_bytes(value: Any) -> int:
    """The bytes of all tensors within a state, one-element counters left out."""
    if isinstance(value, Mapping):
        return sum(map(tensor_bytes, value.values()))
    return value.numel() * value.element_size() if isinstance(value, Tensor) and value.numel() > 1 else 0


# -- what is written -------------------------------------------------------------------------------


def precision(steps: Sequence[int]) -> dict[str, Any]:
    return {
        "device": machine.device(),
        "elements": ELEMENTS,
        "steps": list(steps),
        "errors": {rule: errors(rule, steps) for rule in exported_rules()},
        "second_moments": second_moments(),
        "bytes": {
            rule: {name: bytes_per_weight(rule, form) for name, form in {**FORMATS, **SMALLEST}.items()}
            for rule in exported_rules()
        },
    }


def print_precision(console: Console, report: Mapping[str, Any]) -> None:
    for number, steps in enumerate(report["steps"]):
        console.print(_errors_table(report, number, "error", f"Relative error, steps: {steps:,}", ".1e"))
    console.print(_errors_table(report, -1, "share", f"Share of the way, steps: {report['steps'][-1]:,}", ".3f"))
    memory = Table("format", title="Bytes kept for each weight")
    for rule in report["bytes"]:
        memory.add_column(rule, justify="right")
    for name in {**FORMATS, **SMALLEST}:
        memory.add_row(name, *(f"{sum(line[name].values()):.2f}" for line in report["bytes"].values()))
    console.print(memory)
    for name, ratio in report["second_moments"].items():
        console.print(f"Mean of squares, {name}: {ratio:.3f} of what it is in float64")


def _errors_table(report: Mapping[str, Any], number: int, figure: str, title: str, form: str) -> Table:
    table = Table("rule", title=title)
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for rule, found in report["errors"].items():
        table.add_row(rule, *(f"{found[name][figure][number]:{form}}" for name in COLUMNS))
    return table


def save_errors(path: Path, report: Mapping[str, Any]) -> None:
    """A panel for each number of steps: rules from top to bottom, a mark for each format."""
    save_figure([path], lambda: draw(report))


def draw(report: Mapping[str, Any]) -> Figure:
    margins = {"left": 0.17, "right": 0.98, "top": 0.90, "bottom": 0.24, "wspace": 0.08}
    figure, panels = new_figure((11.0, 4.6), "", len(report["steps"]), margins, sharey=True)
    for number, axes in enumerate(panels):
        _panel(axes, report, number)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="lower left", ncols=5, frameon=False, bbox_to_anchor=(0.02, 0.0)
    )
    return figure


def _panel(axes: Axes, report: Mapping[str, Any], number: int) -> None:
    rules = list(report["errors"])
    for name, form in COLUMNS.items():
        values = [report["errors"][rule][name]["error"][number] for rule in rules]
        axes.plot(values, range(len(rules)), form.marker, color=form.colour, ms=6, mfc="none", ls="", label=name)
    axes.set_xscale("log")
    dress(axes, f"Relative error, steps: {report['steps'][number]:,}", rules)
    axes.grid(axis="y", color="#e8e8e8", lw=0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", nargs="+", type=int, default=STEPS, help="after how many steps errors are taken")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "precision.json"
    console = Console(width=None if sys.stdout.isatty() else 150)
    torch.set_num_threads(1)  # the tensors are small
    report = precision(options.steps)
    print_precision(console, report)
    save_errors(path.with_suffix(".svg"), report)
    path.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"Written to {path}")


if __name__ == "__main__":
    main()
