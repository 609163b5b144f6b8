"""Muon on hidden matrices with AdamW on the rest, beside AdamW alone: two small tasks, five seeds, a grid of rates.

    python benchmarks/matrices_training.py                            # ten minutes on one thread; tables are printed
    python benchmarks/matrices_training.py --tasks digits --seeds 2
    python benchmarks/matrices_training.py --store                    # docs/rules.md and its figure, results/ too
    python benchmarks/matrices_training.py --redraw                   # the same from the results of before

`digits`: a perceptron of three hidden layers on scikit-learn's handwritten digits. `text`: a transformer of two layers
that predicts the next character of Python's own documentation, 64 at a time. Both train as many steps under either; the
rate falls by half a cosine, decays are equal. Muon's updates have the size of AdamW's (`match_rms_adamw`), so that one
rate serves both and one grid is fair to both. A seed decides the first weights and the batches: its runs differ in
optimizer and rate alone.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from low_precision_training import loss_of, text_problem
from torch import Tensor, nn

from neon.commands import machine
from neon.commands.compare.digits import digits
from neon.commands.figures import BLUE, VERMILION, dress, new_figure, save_figure
from neon.optimizers import AdamW, MultiOptimizer, Muon, Optimizer, WarmupCosine

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "rules.md"
FIGURE = FOLDER.parent / "docs" / "matrices_training.svg"
RESULTS = FOLDER / "results" / "matrices-training.json"
BEGIN, END = "<!-- measured: benchmarks/matrices_training.py -->", "<!-- end of matrices_training -->"
RATES = tuple(1e-3 * 2**power for power in range(7))
DECAY = 0.01
COLOURS = {"Muon + AdamW": VERMILION, "AdamW": BLUE}


@dataclass(frozen=True)
class Problem:
    """A network, data, and how long it is trained."""

    model: Callable[[], nn.Module]
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    steps: int
    batch: int
    every: int  # steps between two points of a curve


def digits_problem() -> Problem:
    task, width = digits(), 128

    def model() -> nn.Module:
        sizes = (64, width, width, width)
        layers = [part for size in sizes[:3] for part in (nn.Linear(size, width), nn.ReLU())]
        return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, 10))

    return Problem(model, task.train, task.validation, steps=300, batch=64, every=10)


def text_of_documentation() -> Problem:
    problem = text_problem(length=64)
    held_out = problem.validation[0][:100], problem.validation[1][:100]
    return Problem(problem.model, problem.train, held_out, steps=250, batch=16, every=10)


PROBLEMS = {"digits": digits_problem, "text": text_of_documentation}


def adamw(problem: Problem, rate: float) -> Optimizer:
    schedule = WarmupCosine(problem.steps // 20, problem.steps, unit="steps")
    return AdamW(learning_rate=rate, wdecay=DECAY, schedule=schedule)


def muon_and_adamw(problem: Problem, rate: float) -> Optimizer:
    schedule = WarmupCosine(problem.steps // 20, problem.steps, unit="steps")
    muon = Muon.preset("moonshot", learning_rate=rate, wdecay=DECAY, schedule=schedule)
    return MultiOptimizer({"default": adamw(problem, rate), "HiddenMatrix": muon})


OPTIMIZERS = {"Muon + AdamW": muon_and_adamw, "AdamW": adamw}


def run(problem: Problem, make: Callable[[Problem, float], Optimizer], rate: float, seed: int) -> dict[str, Any]:
    """Train once: what is held out, its loss every few steps and its accuracy at the end."""
    torch.manual_seed(seed)
    model = problem.model()
    optimizer = make(problem, rate).attach(model)
    inputs, classes = problem.train
    losses = []
    for step in range(1, 1 + problem.steps):
        chosen = torch.randint(len(inputs), (problem.batch,))
        optimizer.zero_grad()
        loss_of(model, inputs[chosen], classes[chosen]).backward()
        optimizer.step()
        if step % problem.every == 0:
            with torch.no_grad():
                losses.append(round(loss_of(model, *problem.validation).item(), 5))
    with torch.no_grad():
        right = model(problem.validation[0]).argmax(-1) == problem.validation[1]
    return {"losses": losses, "accuracy": right.float().mean().item()}


def train(name: str, seeds: int, rates: Sequence[float]) -> dict[str, Any]:
    """All runs of a task, by optimizer and rate."""
    problem = PROBLEMS[name]()
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for who, make in OPTIMIZERS.items():
        runs[who] = {}
        for rate in rates:
            runs[who][f"{rate:g}"] = found = [run(problem, make, rate, seed) for seed in range(seeds)]
            print(f"{name}, {who}, {rate:g}: {_cell(found)}", flush=True)
    return {
        "steps": problem.steps,
        "batch": problem.batch,
        "every": problem.every,
        "weights": sum(param.numel() for param in problem.model().parameters()),
        "runs": runs,
    }


def final_losses(runs: Sequence[Mapping[str, Any]]) -> list[float]:
    return [one["losses"][-1] for one in runs]


def best_rate(by_rate: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The rate with the lowest mean loss at the end."""
    return min(by_rate, key=lambda rate: statistics.mean(final_losses(by_rate[rate])))


def _cell(runs: Sequence[Mapping[str, Any]]) -> str:
    losses = final_losses(runs)
    return f"{statistics.mean(losses):.4f} ± {statistics.stdev(losses):.4f}"


def table(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """Losses at the end by rate, the best of each line in bold, and its accuracy."""
    rates = list(next(iter(next(iter(tasks.values()))["runs"].values())))
    head = ["task", "optimizer", *rates, "accuracy"]
    lines = [f"| {' | '.join(head)} |", "| --- | --- |" + " ---: |" * (len(rates) + 1)]
    for name, task in tasks.items():
        for who, by_rate in task["runs"].items():
            best = best_rate(by_rate)
            cells = [f"**{_cell(found)}**" if rate == best else _cell(found) for rate, found in by_rate.items()]
            accuracy = statistics.mean(one["accuracy"] for one in by_rate[best])
            lines.append(f"| {name} | {who} | {' | '.join(cells)} | {100 * accuracy:.1f} % |")
    return "\n".join(lines)


def reached(task: Mapping[str, Any]) -> str:
    """What the two give at their best rates: the paired difference, and when one reaches where the other ends."""
    ours, theirs = (task["runs"][who][best_rate(task["runs"][who])] for who in OPTIMIZERS)
    differences = [a - b for a, b in zip(final_losses(ours), final_losses(theirs), strict=True)]
    error = statistics.stdev(differences) / len(differences) ** 0.5
    aim = statistics.mean(final_losses(theirs))
    means = [statistics.mean(at) for at in zip(*(one["losses"] for one in ours), strict=True)]
    first = next((place for place, loss in enumerate(means, 1) if loss <= aim), None)
    text = f"Muon + AdamW minus AdamW {statistics.mean(differences):+.4f} ± {error:.4f} (standard error)"
    when = "which the first does not reach"
    if first is not None:
        when = f"which the first reaches after {first * task['every']} of {task['steps']} steps"
    return f"{text} at the end; AdamW ends at {aim:.4f}, {when}"


def draw(report: Mapping[str, Any]) -> Any:
    """A panel for each task: mean and spread over seeds at the best rate of each optimizer."""
    tasks = report["tasks"]
    margins = {"left": 0.07, "right": 0.98, "top": 0.84, "bottom": 0.13, "wspace": 0.22}
    figure, panels = new_figure((9.0, 3.6), "", len(tasks), margins)
    for axes, (name, task) in zip(panels, tasks.items(), strict=True):
        for who, by_rate in task["runs"].items():
            rate = best_rate(by_rate)
            at = list(zip(*(one["losses"] for one in by_rate[rate]), strict=True))
            steps = [task["every"] * place for place in range(1, 1 + len(at))]
            means, spreads = [statistics.mean(each) for each in at], [statistics.stdev(each) for each in at]
            low, high = ([m + sign * s for m, s in zip(means, spreads, strict=True)] for sign in (-1, 1))
            axes.plot(steps, means, color=COLOURS[who], lw=1.5, label=f"{who}, {rate}")
            axes.fill_between(steps, low, high, color=COLOURS[who], alpha=0.2, lw=0)
        dress(axes, f"{name}: validation loss by step")
        if name == "digits":
            axes.set_yscale("log")
        axes.legend(frameon=False, loc="upper right")
    return figure


def store(report: Mapping[str, Any]) -> None:
    """Write the table and what it says into the page, curves into its figure."""
    written = [table(report["tasks"]), *(f"- {name}: {reached(task)}." for name, task in report["tasks"].items())]
    text = written[0] + "\n\n" + "\n".join(written[1:])
    page = PAGE.read_text(encoding="utf-8")
    write = partial(re.sub, f"(?s)({re.escape(BEGIN)}).*?({re.escape(END)})")
    PAGE.write_text(write(lambda found: f"{found[1]}\n\n{text}\n\n{found[2]}", page), encoding="utf-8")
    save_figure([FIGURE], lambda: draw(report))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rates", nargs="+", type=float, default=RATES)
    parser.add_argument("--store", action="store_true", help="write results, table and figure")
    parser.add_argument("--redraw", action="store_true", help="write table and figure of stored results")
    options = parser.parse_args()
    if options.redraw:
        store(json.loads(RESULTS.read_text(encoding="utf-8")))
        return
    torch.set_num_threads(1)
    report: dict[str, Any] = {"device": machine.device(), "seeds": options.seeds, "tasks": {}}
    for name in options.tasks:
        report["tasks"][name] = train(name, options.seeds, options.rates)
    print(table(report["tasks"]))
    for name, task in report["tasks"].items():
        print(f"{name}: {reached(task)}")
    if options.store:
        RESULTS.write_text(json.dumps(report) + "\n", encoding="utf-8")
        store(report)


if __name__ == "__main__":
    sys.exit(main())
