"""A first look at speed: neon beside torch.optim's best, in one interleaved run.

    python benchmarks/first_look.py                          # all rules, about 8 minutes
    python benchmarks/first_look.py --rules Adam --rounds 5

Every contender steps over the same parameters and gradients with states of its own, once a round and in
an order that rotates; what is reported are medians over the rounds. The limit of memory is measured in
the same rounds: the faster of torch and numba at scaling, in place, as many bytes as Adam touches. A
rule's share of it is the bytes it must move (each tensor read once, and written once where it
changes), by its time, by the limit. Writes a table, and benchmarks/results/DEVICE.json.
"""

from __future__ import annotations

import argparse
import inspect
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import machine
import numba
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from neon.optimizers import Adadelta, Adagrad, Adam, AdamW, GradientDescentMomentum, Optimizer, RMSProp

Step = Callable[[], Any]
SHAPES = {"large": [(4096, 4096)] * 3, "tiny": [(64,)] * 200}
STEPS_A_ROUND = {"large": 1, "tiny": 50}
CONFIGURATIONS = {
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "loop": {"foreach": False, "fused": False},
}


@dataclass(frozen=True)
class Rule:
    """A rule as neon and as torch has it, with the same numbers, and how many states it keeps."""

    neon: Callable[..., Optimizer]
    torch: Callable[..., torch.optim.Optimizer]
    arguments: dict[str, Any]
    states: int

    def bytes_moved(self, clip: bool) -> int:
        """Bytes a float32 parameter: reads of w, g and states, writes of w and states, g again for its norm."""
        return 4 * (2 + self.states + 1 + self.states + clip)

    def torch_steppers(self, params: list[Tensor]) -> dict[str, torch.optim.Optimizer]:
        """Torch's optimizer in each configuration that it has."""
        known = inspect.signature(self.torch).parameters
        return {
            name: self.torch(params, **self.arguments, **{k: v for k, v in options.items() if k in known})
            for name, options in CONFIGURATIONS.items()
            if name in known or name == "loop"
        }


# ε is so small that where it stands (inside the root, or outside) does not show.
RULES = {
    "SGD momentum": Rule(partial(GradientDescentMomentum, 0.1, 0.9), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}, 1),
    "Adagrad": Rule(
        partial(Adagrad, learning_rate=0.01, epsilon=1e-12), torch.optim.Adagrad, {"lr": 0.01, "eps": 1e-12}, 1
    ),
    "RMSProp": Rule(
        partial(RMSProp, decay_rate=0.95, learning_rate=1e-3, epsilon=1e-12),
        torch.optim.RMSprop,
        {"lr": 1e-3, "alpha": 0.95, "eps": 1e-12},
        1,
    ),
    "Adadelta": Rule(
        partial(Adadelta, decay=0.95, epsilon=1e-6), torch.optim.Adadelta, {"lr": 1.0, "rho": 0.95, "eps": 1e-6}, 2
    ),
    "Adam": Rule(partial(Adam, learning_rate=1e-3), torch.optim.Adam, {"lr": 1e-3}, 2),
    "AdamW": Rule(partial(AdamW, learning_rate=1e-3), torch.optim.AdamW, {"lr": 1e-3, "weight_decay": 0.01}, 2),
}


def tensors(shapes: list[tuple[int, ...]]) -> tuple[list[Tensor], float]:
    """Parameters with gradients of either sign, 0.005 to 0.015 in size; and half the gradients' norm."""
    torch.manual_seed(0)
    params = [torch.randn(shape).mul_(0.01).requires_grad_() for shape in shapes]
    for param in params:
        sign = torch.randint(0, 2, param.shape).mul_(2).sub_(1)
        param.grad = torch.rand(param.shape).add_(0.5).mul_(0.01).mul_(sign)
    return params, 0.5 * float(torch.stack([p.grad.norm() for p in params if p.grad is not None]).norm())


def contenders(rule: Rule, params: list[Tensor], bound: float | None) -> dict[str, Step]:
    """A step of neon's, and of torch's in each configuration."""

    def clip_and_step(optimizer: torch.optim.Optimizer) -> None:
        if bound is not None:
            clip_grad_norm_(params, bound, foreach=True)
        optimizer.step()

    steps: dict[str, Step] = {"neon": rule.neon(gradient_clip_norm=bound).attach(params).step}
    return steps | {name: partial(clip_and_step, o) for name, o in rule.torch_steppers(params).items()}


def check_agreement(rule: Rule, clip: bool) -> float:
    """The largest difference after three steps, as a fraction of the largest update; AssertionError above 1e-4."""

    def trained(name: str) -> Tensor:
        params, bound = tensors([(100, 77), (1000,)])
        step = contenders(rule, params, bound if clip else None)[name]
        grads = [p.grad.clone() for p in params if p.grad is not None]
        for _ in range(3):
            for param, grad in zip(params, grads, strict=True):
                param.grad = grad.clone()
            step()
        return torch.cat([p.detach().flatten() for p in params])

    start = torch.cat([p.detach().flatten() for p in tensors([(100, 77), (1000,)])[0]])
    ours = trained("neon")
    names = [name for name in contenders(rule, tensors([(1,)])[0], None) if name != "neon"]
    worst = max(float((ours - trained(name)).abs().max() / (ours - start).abs().max()) for name in names)
    assert worst < 1e-4, f"neon and torch differ by {worst:.1e} of an update"
    return worst


@numba.njit(parallel=True)
def scale_by_numba(x: Any, factor: Any) -> None:
    for i in numba.prange(len(x)):
        x[i] *= factor


def limits(elements: int) -> dict[str, Step]:
    """In-place scaling of a vector, by torch and by numba."""
    vector = torch.ones(elements)
    return {
        "scale by torch": partial(vector.mul_, 1.0),
        "scale by numba": partial(scale_by_numba, vector.numpy(), np.float32(1)),
    }


def interleaved(steps: dict[str, Step], rounds: int, repeats: int) -> dict[str, list[float]]:
    """Seconds a step in each round."""
    for step in steps.values():  # the first step makes states, compiles, plans
        step()
        step()
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            step = steps[name]
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            seconds[name].append((time.perf_counter() - start) / repeats)
    return seconds


def measure(name: str, size: str, clip: bool, rounds: int) -> dict[str, Any]:
    """One line of the table."""
    rule = RULES[name]
    agreement = check_agreement(rule, clip)
    params, bound = tensors(SHAPES[size])
    elements = sum(p.numel() for p in params)
    steps = contenders(rule, params, bound if clip else None)
    # Four vectors of the parameters' size, as Adam has: past the last cache.
    scaling = limits(4 * elements) if size == "large" else {}
    before, start = machine.processor_seconds(), time.perf_counter()
    seconds = interleaved(steps | scaling, rounds, STEPS_A_ROUND[size])
    others = machine.busy_with_others(before, time.perf_counter() - start)
    assert all(bool(p.isfinite().all()) for p in params)
    medians = {who: statistics.median(times) for who, times in seconds.items()}
    best = min((who for who in steps if who != "neon"), key=medians.__getitem__)
    line: dict[str, Any] = {
        "rule": name,
        "size": size,
        "clip_by_norm": clip,
        "difference_in_updates": agreement,
        "median_seconds": medians,
        "quartiles": {who: statistics.quantiles(times)[::2] for who, times in seconds.items()},
        "torch_best": best,
        "ratio": medians[best] / medians["neon"],
        "busy_with_others": others,
    }
    if scaling:
        moved = rule.bytes_moved(clip)
        limit = 8 * 4 * elements / min(medians[who] for who in scaling)
        line["bytes_a_parameter"] = moved
        line["limit_gb_s"] = limit / 1e9
        line["share_of_limit"] = {who: moved * elements / medians[who] / limit for who in steps}
        line["extra_bytes_a_parameter"] = {w: extra_memory(name, w, clip) for w in ("neon", best, "foreach")}
    return line


# --- Memory ---


def extra_memory(rule: str, who: str, clip: bool) -> float | None:
    """Peak bytes a parameter beyond what stands before a step; in a new process, whose peak nothing else raised."""
    command = [sys.executable, __file__, "--peak", rule, who, str(int(clip))]
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(run.stdout)


def print_peak(rule: str, who: str, clip: bool) -> None:
    """What `extra_memory` runs: two steps, then a third while the kernel keeps the peak."""
    params, bound = tensors(SHAPES["large"])
    step = contenders(RULES[rule], params, bound if clip else None)[who]
    step()
    step()
    extra = None
    if machine.LINUX:
        machine.forget_peak()
        before = machine.resident_bytes("VmRSS")
        step()
        extra = max(0, machine.resident_bytes("VmHWM") - before) / sum(p.numel() for p in params)
    print(json.dumps(extra))


# --- Report ---


def disturbed(line: dict[str, Any]) -> bool:
    """Whether something else used more than a tenth of a processor meanwhile, or nobody knows."""
    return line["busy_with_others"] is None or line["busy_with_others"] > 0.1


def table(size: str, lines: list[dict[str, Any]]) -> Table:
    """The lines of one size."""
    unit, factor = ("ms", 1e3) if size == "large" else ("µs", 1e6)
    shape = " x ".join(map(str, SHAPES[size][0]))
    shown = Table(title=f"{size}: {len(SHAPES[size])} tensors of {shape}, float32, {unit} a step")
    columns = ["rule", "clip", "neon", *CONFIGURATIONS, "ratio"]
    if size == "large":
        columns += ["bytes", "of limit", "torch", "extra", "foreach"]
    for column in columns:
        shown.add_column(column, justify="left" if column in ("rule", "clip") else "right", no_wrap=True)
    for line in lines:
        medians = line["median_seconds"]
        row = [line["rule"] + " *" * disturbed(line), "norm" if line["clip_by_norm"] else ""]
        row += [f"{medians[w] * factor:.4g}" if w in medians else "–" for w in ("neon", *CONFIGURATIONS)]
        row += [f"{line['ratio']:.2f}x"]
        if size == "large":
            share, extra = line["share_of_limit"], line["extra_bytes_a_parameter"]
            row += [str(line["bytes_a_parameter"]), f"{share['neon']:.2f}", f"{share[line['torch_best']]:.2f}"]
            row += ["–" if extra[w] is None else f"{extra[w]:.2f}" for w in ("neon", "foreach")]
        shown.add_row(*row)
    return shown


LEGEND = """\
ratio: the time of torch's fastest by neon's. bytes: moved for a parameter at the least. of limit, torch: the
share of the memory limit that neon and torch's fastest reach. extra, foreach: bytes a parameter that a
step of neon's and of torch's foreach takes beyond parameters, gradients and states."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", nargs="+", choices=RULES, default=list(RULES))
    parser.add_argument("--sizes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print_peak(options.peak[0], options.peak[1], options.peak[2] == "1")
        return
    console = Console(width=None if sys.stdout.isatty() else 110)
    lines: list[dict[str, Any]] = []
    report = {"device": machine.device(), "load_before": os.getloadavg(), "rounds": options.rounds}
    for size in options.sizes:
        for name in options.rules:
            for clip in (False, True):
                lines.append(measure(name, size, clip, options.rounds))
                console.log(f"{size}, {name}{', clip by norm' * clip}: {lines[-1]['ratio']:.2f}x")
    for size in options.sizes:
        console.print(table(size, [line for line in lines if line["size"] == size]))
    console.print(LEGEND, highlight=False)
    quiet = not any(map(disturbed, lines))
    if not quiet:
        console.print("[bold red]* something else used the processors meanwhile: not to be relied on.")
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / f"{machine.file_name(report['device'])}{'' if quiet else '-busy'}.json"
    path.write_text(json.dumps({**report, "lines": lines}, indent=1) + "\n")
    console.print(f"Written to {path}")


if __name__ == "__main__":
    main()
