"""What steps ask where nothing has changed: over lists of 100 layers, and of each parameter in the backward pass.

    python benchmarks/steady_steps.py                # half a minute

Medians over steps of the processor time that neon takes: for `optimize` over layers that keep their gradients, and that
have new ones at each step; for a parameter whose gradient arrives in a backward pass of a small network; for one of
200 parameters of 64 elements whose gradients are there at once; and for 200 parameters under `fully_shard`.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard

from neon.commands.bench.backward import mlp
from neon.initializers import Gaussian
from neon.layers import Affine, Linear
from neon.optimizers import Adam, AdamW, GradientDescentMomentum, MultiOptimizer, RMSProp
from neon.stepping.in_backward import BackwardStepper

SIDE, STEPS = 8, 300


class Plain:
    """The least that a layer can be."""

    def __init__(self) -> None:
        self.w, self.g, self.states = torch.randn(SIDE), torch.randn(SIDE), []

    def get_params(self) -> tuple[tuple[Tensor, Tensor], list[Tensor]]:
        return (self.w, self.g), self.states


def mapping() -> MultiOptimizer:
    return MultiOptimizer({"default": Adam(), "Bias": GradientDescentMomentum(0.1, 0.9), "a1*": RMSProp()})


LAYERS: dict[str, Callable[[], list[Any]]] = {
    "100 Linear": lambda: [Linear(SIDE, Gaussian(scale=0.1)).configure(SIDE) for _ in range(100)],
    "50 Affine": lambda: [Affine(SIDE, Gaussian(scale=0.1), name=f"a{i}").configure(SIDE) for i in range(50)],
    "100 torch.nn.Linear": lambda: [nn.Linear(SIDE, SIDE, bias=False) for _ in range(100)],
    "100 of one's own": lambda: [Plain() for _ in range(100)],
}


def new_gradients(layers: list[Any]) -> None:
    for layer in layers:
        if isinstance(layer, Plain):
            layer.g = torch.ones_like(layer.w)
        else:
            for parameter in layer.parameters():
                parameter.grad = torch.ones_like(parameter)


def over_lists(layers: list[Any], optimizer: Any, *, new: bool) -> float:
    times = []
    new_gradients(layers)
    for _ in range(STEPS):
        if new:
            new_gradients(layers)
        start = time.thread_time()
        optimizer.optimize(layers, 0)
        times.append(time.thread_time() - start)
    return statistics.median(times[10:]) * 1e6


def in_backward() -> float:
    times: list[float] = []
    arrived = BackwardStepper.arrived

    def timed(*given: Any, **named: Any) -> None:
        start = time.thread_time()
        arrived(*given, **named)
        times.append(time.thread_time() - start)

    BackwardStepper.arrived = timed  # type: ignore[method-assign]
    model, inputs, targets = mlp(), torch.randn(128, 64), torch.randint(10, (128,))
    optimizer = Adam().attach(model, in_backward=True)
    for _ in range(STEPS):
        nn.functional.cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    BackwardStepper.arrived = arrived
    return statistics.median(times[60:]) * 1e6


def one_of_many(count: int = 200) -> float:
    """Gradients that came from elsewhere, each of which is taken as if it arrived."""
    params, times = [nn.Parameter(torch.randn(64)) for _ in range(count)], []
    optimizer, grads = Adam().attach(params, in_backward=True), [torch.randn(64) for _ in range(count)]
    for _ in range(STEPS // 2):
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad
        start = time.thread_time()
        optimizer.step()
        times.append((time.thread_time() - start) / count)
    return statistics.median(times[10:]) * 1e6


def sharded(optimizer: Callable[[nn.Module], torch.optim.Optimizer]) -> float:
    """Layers of 64 units over one process, gradients new at each step."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    model, times = nn.Sequential(*(nn.Linear(64, 64) for _ in range(100))), []
    fully_shard(model)
    stepped = optimizer(model)
    for _ in range(STEPS // 10):
        model(torch.ones(2, 64)).square().mean().backward()
        start = time.thread_time()
        stepped.step()
        times.append(time.thread_time() - start)
        stepped.zero_grad()
    distributed.destroy_process_group()
    return statistics.median(times[3:]) * 1e6


def main() -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="MultiOptimizer: no layer fits")
    table = Table("what", "the same gradients", "new gradients")
    for name, make in LAYERS.items():
        for kind in (Adam, mapping):
            times = [over_lists(make(), kind(), new=new) for new in (False, True)]
            table.add_row(f"{name}, {kind.__name__}", *(f"{each:.0f} µs" for each in times))
    table.add_row("a parameter in the backward pass, Adam", "", f"{in_backward():.0f} µs")
    table.add_row("one of 200 parameters with in_backward=True, Adam", f"{one_of_many():.0f} µs", "")
    for name, make in (("neon", AdamW().attach), ("torch, foreach", lambda m: torch.optim.AdamW(m.parameters()))):
        table.add_row(f"200 parameters under fully_shard, AdamW, {name}", "", f"{sharded(make):.0f} µs")
    Console().print(table)


if __name__ == "__main__":
    main()
