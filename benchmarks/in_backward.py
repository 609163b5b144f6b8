"""What updates within the backward pass save in memory, and cost in time, on a deep network.

    python benchmarks/in_backward.py                 # about a minute
    python benchmarks/in_backward.py --layers 12

Each contender trains the same perceptron (layers of 1024 × 1024) in a process of its own, whose peak resident
memory is read at the end; the memory of parameters and of two states is taken off, so that what remains
is gradients and activations. Rounds take turns; times are medians over steps and rounds. Writes a table, and
benchmarks/results/in-backward-DEVICE.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from neon.commands import machine
from neon.optimizers import Adam

WIDTH = 1024
Step = Callable[[], None]


def attached(model: nn.Module, in_backward: bool) -> Step:
    optimizer = Adam().attach(model, in_backward=in_backward)

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return step


def torchs(model: nn.Module, fused: bool) -> Step:
    optimizer = torch.optim.Adam(model.parameters(), fused=fused)

    def step() -> None:
        optimizer.step()
        optimizer.zero_grad()

    return step


def torchs_hooks(model: nn.Module) -> Step:
    """As torch's tutorial has it: an optimizer for each parameter, called by its hook."""
    optimizers = {p: torch.optim.Adam([p], fused=True) for p in model.parameters()}

    def hook(param: torch.Tensor) -> None:
        optimizers[param].step()
        optimizers[param].zero_grad()

    for param in model.parameters():
        param.register_post_accumulate_grad_hook(hook)
    return lambda: None


CONTENDERS: dict[str, Callable[[nn.Module], Step]] = {
    "neon": lambda model: attached(model, in_backward=False),
    "neon, in_backward": lambda model: attached(model, in_backward=True),
    "torch fused": lambda model: torchs(model, fused=True),
    "torch, a fused optimizer in each hook": torchs_hooks,
}


def train(contender: str, model: nn.Module, steps: int) -> list[float]:
    """The seconds of each step."""
    step, x, times = CONTENDERS[contender](model), torch.randn(8, WIDTH), []
    for _ in range(steps):
        start = time.perf_counter()
        model(x).square().mean().backward()
        step()
        times.append(time.perf_counter() - start)
    return times


def run(contender: str, layers: int, steps: int) -> None:
    """One contender, in this process: prints its figures as JSON."""
    train(contender, nn.Sequential(nn.Linear(WIDTH, WIDTH)), 2)  # what is imported and compiled does not count
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(layers)))
    machine.forget_peak()
    before = machine.resident_bytes("VmRSS")
    times = train(contender, model, steps)
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    beyond = (machine.resident_bytes("VmHWM") - before) / parameters - 2  # two states
    print(json.dumps({"seconds": statistics.median(times[2:]), "beyond": beyond}))


def measured(contender: str, layers: int, steps: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", contender, "--layers", str(layers), "--steps", str(steps)]
    # glibc would keep what is freed between the states: every large tensor is a mapping of its own.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"}
    child = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603
    return json.loads(child.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=48)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args()
    if given.child:
        run(given.child, given.layers, given.steps)
        return
    rounds = [{name: measured(name, given.layers, given.steps) for name in CONTENDERS} for _ in range(given.rounds)]
    result = {
        name: {key: statistics.median(turn[name][key] for turn in rounds) for key in ("seconds", "beyond")}
        for name in CONTENDERS
    }
    table = Table("contender", "ms a step", "memory beyond parameters and states, in gradients of the model")
    for name, figures in result.items():
        table.add_row(name, f"{figures['seconds'] * 1e3:.1f}", f"{figures['beyond']:.2f}")
    Console().print(table)
    device = machine.device()
    path = given.output / f"in-backward-{machine.file_name(device)}.json"
    report = {"device": device, "layers": given.layers, "contenders": result}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
