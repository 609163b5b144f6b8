"""Whether networks trained in few bits end where float32 ends: two tasks, ten seeds, every format.

    python benchmarks/low_precision_training.py                           # about eight minutes on one thread
    python benchmarks/low_precision_training.py --tasks digits --seeds 3

`digits`: a perceptron on scikit-learn's handwritten digits, with its accuracy on those held out. `text`: a
transformer of two layers that predicts the next character of Python's own documentation. Both with Adam;
`digits, momentum` is the first with momentum. The rate falls by half a cosine. A seed decides the first
weights and the batches, so that its runs differ in format alone; in `bfloat16` the weights, the activations
and the gradients are bfloat16.

A format is within noise of float32 where the mean over seeds of the difference is less than 2.26 standard
errors of it: with ten seeds, one comparison in twenty then errs where there is no difference.

Writes a table, and results/low-precision-training.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from pydoc_data import topics
from typing import Any

import torch
from precision import tensor_bytes
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from neon.commands import machine
from neon.commands.bench.few_bits import FORMATS, Format
from neon.commands.compare.digits import digits
from neon.optimizers import Adam, GradientDescentMomentum, Optimizer, WarmupCosine

WITHIN = 2.26  # standard errors: of Student's distribution of nine degrees of freedom, 95% lie within


class Block(nn.Module):
    """A layer of a transformer: attention to what came before, then a perceptron."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        parts = self.attention(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts
        # By hand: torch's own on bfloat16 takes half of a step's time on processors.
        scores = query @ key.mT * query.shape[-1] ** -0.5
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        seen = scores.masked_fill(later, -torch.inf).softmax(-1) @ value
        x = x + self.project(seen.transpose(1, 2).flatten(-2))
        return x + self.perceptron(self.norms[1](x))


class Transformer(nn.Module):
    def __init__(self, characters: int, length: int, width: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.characters, self.places = nn.Embedding(characters, width), nn.Embedding(length, width)
        for table in (self.characters, self.places):
            nn.init.normal_(table.weight, std=0.1)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(2)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)

    def forward(self, text: Tensor) -> Tensor:
        places = torch.arange(text.shape[1])
        return self.head(self.norm(self.blocks(self.characters(text) + self.places(places))))


@dataclass(frozen=True)
class Problem:
    """A network, data in pairs of inputs and classes, and how it is trained."""

    model: Callable[[], nn.Module]
    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    rule: Callable[..., Optimizer]
    rate: float
    steps: int
    batch: int


def digits_problem(rule: Callable[..., Optimizer] = Adam, rate: float = 4e-3) -> Problem:
    task = digits()

    def model() -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 10)
        )

    return Problem(model, task.train, task.validation, rule, rate, steps=400, batch=64)


def text_problem(length: int = 32) -> Problem:
    """Of the pieces of the text, every tenth is for validation."""
    text = "".join(topics.topics[name] for name in sorted(topics.topics))
    number = {character: i for i, character in enumerate(sorted(set(text)))}
    codes = torch.tensor([number[character] for character in text])
    pieces = codes[: len(codes) // (length + 1) * (length + 1)].view(-1, length + 1)
    held_out = torch.arange(len(pieces)) % 10 == 0
    train, validation = pieces[~held_out], pieces[held_out]
    return Problem(
        lambda: Transformer(len(number), length),
        (train[:, :-1], train[:, 1:]),
        (validation[:, :-1], validation[:, 1:]),
        Adam,
        rate=5e-3,
        steps=500,
        batch=16,
    )


def momentum_problem() -> Problem:
    return digits_problem(partial(GradientDescentMomentum, momentum_coef=0.9), rate=0.1)


PROBLEMS = {"digits": digits_problem, "digits, momentum": momentum_problem, "text": text_problem}


def loss_of(model: nn.Module, inputs: Tensor, classes: Tensor) -> Tensor:
    return cross_entropy(model(inputs).float().flatten(0, -2), classes.flatten())


def run(problem: Problem, form: Format, seed: int, rate: float) -> dict[str, float]:
    """Train once: the loss at the end over the training data, loss and accuracy on what is held out, bytes a weight."""
    torch.manual_seed(seed)
    model = problem.model().to(form.dtype)
    schedule = WarmupCosine(problem.steps // 20, problem.steps, unit="steps")
    optimizer = problem.rule(learning_rate=rate, schedule=schedule, seed=seed, **form.options).attach(model)
    inputs, classes = (convert(part, form.dtype) for part in problem.train)
    for _ in range(problem.steps):
        chosen = torch.randint(len(inputs), (problem.batch,))
        optimizer.zero_grad()
        loss_of(model, inputs[chosen], classes[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        step = -(-len(inputs) // 1500)
        held_out = [convert(part, form.dtype)[:400] for part in problem.validation]
        right = model(held_out[0]).argmax(-1) == held_out[1]
        params = list(model.parameters())
        kept = sum(p.numel() * p.element_size() + tensor_bytes(optimizer.state[p]) for p in params)
        return {
            "loss": loss_of(model, inputs[::step], classes[::step]).item(),
            "validation loss": loss_of(model, *held_out).item(),
            "accuracy": right.float().mean().item(),
            "bytes": kept / sum(p.numel() for p in params),
        }


def convert(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype) if x.is_floating_point() else x


def compared(values: Sequence[float], reference: Sequence[float]) -> dict[str, float | bool]:
    """The mean and the spread over seeds; the mean difference from the reference, seed by seed, and its error."""
    differences = [a - b for a, b in zip(values, reference, strict=True)]
    mean, error = statistics.mean(differences), statistics.stdev(differences) / len(differences) ** 0.5
    return {
        "mean": statistics.mean(values),
        "deviation": statistics.stdev(values),
        "difference": mean,
        "error": error,
        "within_noise": abs(mean) <= WITHIN * error,
    }


def train(name: str, seeds: int, rate: float | None) -> dict[str, Any]:
    """All runs of a task: figures by format."""
    problem = PROBLEMS[name]()
    rate = problem.rate if rate is None else rate
    runs: dict[str, list[dict[str, float]]] = {}
    start = time.perf_counter()
    for label, form in FORMATS.items():
        runs[label] = [run(problem, form, seed, rate) for seed in range(seeds)]
    by_format: dict[str, Any] = {}
    for label, found in runs.items():
        by_format[label] = {"bytes": found[0]["bytes"]}
        for figure in ("loss", "validation loss", "accuracy"):
            by_format[label][figure] = compared([r[figure] for r in found], [r[figure] for r in runs["float32"]])
    return {
        "rule": repr(problem.rule(learning_rate=rate)),
        "rate": rate,
        "steps": problem.steps,
        "batch": problem.batch,
        "weights": sum(p.numel() for p in problem.model().parameters()),
        "seconds": time.perf_counter() - start,
        "formats": by_format,
        "runs": runs,
    }


def print_task(console: Console, name: str, report: Mapping[str, Any]) -> None:
    title = f"{name}: {report['weights']:,} weights, {report['steps']} steps, rate {report['rate']}"
    figures = {"loss": ".4f", "validation loss": ".4f", "accuracy": ".4f"}
    table = Table("format", "bytes a weight", title=title)
    for figure in figures:
        table.add_column(figure)
        table.add_column("minus float32's")
    for label, line in report["formats"].items():
        cells = []
        for figure, digits_ in figures.items():
            f = line[figure]
            cells.append(f"{f['mean']:{digits_}} ± {f['deviation']:{digits_}}")
            beyond = "" if f["within_noise"] else " *"
            cells.append("" if label == "float32" else f"{f['difference']:+.4f} ± {f['error']:.4f}{beyond}")
        table.add_row(label, f"{line['bytes']:.2f}", *cells)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rate", type=float, help="the task's own if not given")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 180)
    report: dict[str, Any] = {"device": machine.device(), "seeds": options.seeds, "tasks": {}}
    for name in options.tasks:
        report["tasks"][name] = train(name, options.seeds, options.rate)
        print_task(console, name, report["tasks"][name])
    console.print("± : the deviation over seeds; of a difference, its standard error. *: beyond noise.")
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "low-precision-training.json"
    path.write_text(json.dumps(report, indent=1) + "\n")
    console.print(f"Written to {path}")


if __name__ == "__main__":
    main()
