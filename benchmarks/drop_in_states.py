"""States of 16-bit parameters: the drop-in classes beside torch.optim's, in memory, time and training.

    python benchmarks/drop_in_states.py                        # about five minutes on a quiet machine
    python benchmarks/drop_in_states.py --parts memory time

`memory`: bytes of state a parameter. `time`: a step of Adam over three bfloat16 tensors of 4096 × 4096, each contender
in turn over tensors of its own. `training`: the tasks of low_precision_training.py with bfloat16 weights that are
rounded to nearest, as torch rounds them, so that runs of a seed differ in their states alone; differences are from
float32 states.

Writes tables, and results/drop-in-states.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from low_precision_training import PROBLEMS, compared, convert, loss_of
from torch import nn

import neon.torch
from neon.commands import machine
from neon.commands.bench.timing import Contender, interleaved
from neon.optimizers import WarmupCosine

Make = Callable[..., torch.optim.Optimizer]
KINDS: dict[str, dict[str, Make]] = {
    name: {
        "torch": lambda params, lr, name=name, more=more: getattr(torch.optim, name)(params, lr, **more),
        "neon": lambda params, lr, name=name, more=more: getattr(neon.torch, name)(params, lr, **more),
        "neon, float32 states": lambda params, lr, name=name, more=more: getattr(neon.torch, name)(
            params, lr, **more, state_dtype="float32"
        ),
    }
    for name, more in (("Adam", {"fused": True}), ("SGD", {"momentum": 0.9}))
}
RULES = {"digits": "Adam", "digits, momentum": "SGD", "text": "Adam"}


def parameters(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[nn.Parameter]:
    params = [nn.Parameter(torch.ones(shape, dtype=dtype)) for shape in shapes]
    for param in params:
        param.grad = torch.full_like(param, 1e-3)
    return params


def memory() -> dict[str, float]:
    """Bytes of state a parameter, by rule, contender and dtype."""
    found = {}
    for rule, makers in KINDS.items():
        for dtype in (torch.bfloat16, torch.float16):
            for who, make in makers.items():
                params = parameters([(512, 512)], dtype)
                optimizer = make(params, 1e-3)
                optimizer.step()
                kept = sum(v.nbytes for k, v in optimizer.state[params[0]].items() if k != "step")
                found[f"{rule}, {str(dtype).removeprefix('torch.')}: {who}"] = kept / params[0].numel()
    return found


def time_of_steps(rounds: int) -> dict[str, Any]:
    """Medians of a step, and by how much each is quicker than torch's."""
    steps = {
        who: Contender(make(parameters([(4096, 4096)] * 3, torch.bfloat16), 1e-6).step)
        for who, make in KINDS["Adam"].items()
    }
    turns, busy = interleaved(steps, rounds)
    seconds = {who: [turn.seconds for turn in taken] for who, taken in turns.items()}
    pairs = {who: [t / own for t, own in zip(seconds["torch"], times, strict=True)] for who, times in seconds.items()}
    return {
        "milliseconds": {who: 1e3 * statistics.median(times) for who, times in seconds.items()},
        "speed-up": {who: statistics.median(ratios) for who, ratios in pairs.items()},
        "busy_with_others": busy,
    }


def train_once(task: str, make: Make, seed: int) -> float:
    """The loss over the training data at the end."""
    problem = PROBLEMS[task]()
    torch.manual_seed(seed)
    model = problem.model().to(torch.bfloat16)
    optimizer = make(model.parameters(), problem.rate)
    schedule = WarmupCosine(problem.steps // 20, problem.steps)
    inputs, classes = (convert(part, torch.bfloat16) for part in problem.train)
    for step in range(problem.steps):
        chosen = torch.randint(len(inputs), (problem.batch,))
        for group in optimizer.param_groups:
            group["lr"] = schedule.get_learning_rate(problem.rate, step)
        optimizer.zero_grad()
        loss_of(model, inputs[chosen], classes[chosen]).backward()
        optimizer.step()
    with torch.no_grad():
        every = -(-len(inputs) // 1500)
        return loss_of(model, inputs[::every], classes[::every]).item()


def training(tasks: list[str], seeds: int) -> dict[str, Any]:
    """The loss of each task and contender, compared with that of float32 states."""
    torch.set_num_threads(1)
    found = {}
    for task in tasks:
        makers = KINDS[RULES[task]]
        losses = {who: [train_once(task, make, seed) for seed in range(seeds)] for who, make in makers.items()}
        found[task] = {who: compared(runs, losses["neon, float32 states"]) for who, runs in losses.items()}
        for figures in found[task].values():
            del figures["within_noise"]  # by the bound of ten seeds
        found[task]["seeds"] = seeds
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=("memory", "time", "training"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tasks", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--seeds", type=int, default=6)
    options = parser.parse_args()
    path = Path(__file__).parent / "results" / "drop-in-states.json"
    report: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    report["device"] = machine.device()
    parts = {
        "memory": memory,
        "time": lambda: time_of_steps(options.rounds),
        "training": lambda: report.get("training", {}) | training(options.tasks, options.seeds),
    }
    for part in options.parts or parts:
        report[part] = parts[part]()
        print(part, json.dumps(report[part], indent=1), sep=": ")
        path.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
