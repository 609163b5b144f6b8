"""What ranks do with a model of many layers of one shape: whatever it is given to, every layer is trained."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from constructors import DROP_INS, OF_MATRICES, RULES, described
from distributed_models import Run, everything, train
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from neon.optimizers import GradientDescentMomentum, MultiOptimizer, Optimizer

LAYERS, SIZE = 8, 8

MAKE: dict[str, Callable[[], Optimizer]] = {
    # Rules of whole matrices, which take no biases, have cases of their own: gradients that are summed in another order
    # give SOAP other bases of directions without gradients.
    **{name: partial(described, name) for name in RULES if name not in {*OF_MATRICES, "SOAP"}},
    "descent": lambda: GradientDescentMomentum(0.1, 0.0),
}


class Stack(nn.Sequential):
    """Eight layers that differ in their values alone."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(*(nn.Linear(SIZE, SIZE) for _ in range(LAYERS)))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.pad(x, (0, SIZE - x.shape[1]))
        for layer in self:
            x = layer(x).tanh()
        return x[:, :2].clone()  # a view would lose hooks of fully_shard


def _sharded(model: Stack, *sizes: int) -> Run:
    mesh = init_device_mesh("cpu", sizes, mesh_dim_names=("replicate", "shard")[-len(sizes) :])
    for module in (*model, model):
        fully_shard(module, mesh=mesh)
    return Run(model, (dist.get_rank(),), dist.get_world_size())


def _tensor_parallel(model: Stack, world: int) -> Run:
    plan = {str(i): RowwiseParallel() if i % 2 else ColwiseParallel() for i in range(LAYERS)}
    parallelize_module(model, init_device_mesh("cpu", (world,)), plan)
    return Run(model)


WAYS: dict[str, Callable[[Stack, int], Run]] = {
    "alone": lambda model, world: Run(model),
    "sharded": lambda model, world: _sharded(model, world),
    "hybrid": lambda model, world: _sharded(model, min(2, world), -(-world // 2)),
    "tensor parallel": _tensor_parallel,
}


# How a rule is handed a model.
GIVEN: dict[str, Callable[[Callable[[], Optimizer], Stack], torch.optim.Optimizer]] = {
    "model": lambda make, model: make().attach(model),
    "mapping": lambda make, model: MultiOptimizer({"default": make(), "Bias": make()}).attach(model),
    "named": lambda make, model: make().attach(model.named_parameters()),
}


def _optimizers(model: Stack, turn: int | None) -> dict[str, Callable[[], torch.optim.Optimizer]]:
    """Every rule by each way to hand it a model, or in turn by one of them; every drop-in, or a third of them."""
    found: dict[str, Callable[[], torch.optim.Optimizer]] = {}
    for place, (name, make) in enumerate(MAKE.items()):
        for number, (how, given) in enumerate(GIVEN.items()):
            if turn is None or (place + turn) % len(GIVEN) == number:
                found[f"{name}, {how}"] = partial(given, make, model)
    for place, name in enumerate(name for name in DROP_INS if name not in OF_MATRICES):
        if turn is None or (place + turn) % len(GIVEN) == 0:
            found[f"{name}, drop-in"] = lambda name=name: DROP_INS[name](model.parameters(), lr=0.01)
    return found


class _Recorder(torch.optim.SGD):
    """Keeps the gradients of each step, and changes nothing."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), lr=0.0)
        self.kept: list[list[Any]] = []

    def step(self, closure: Any = None) -> Any:
        self.kept.append([p.grad.clone() for p in self.param_groups[0]["params"] if p.grad is not None])


def equal_layers(way: str, turn: int | None) -> Any:
    """Two steps of every optimizer whose turn it is, with the gradients that the model has where it runs."""
    model = Stack()
    run = WAYS[way](model, dist.get_world_size())
    recorder = _Recorder(model)
    losses = train(run, recorder, range(2))
    params = list(model.parameters())
    start = [p.detach().clone() for p in params]
    found: dict[str, Any] = {"losses": losses, **{f"start: {key}": p for key, p in everything(model).items()}}
    for name, make in _optimizers(model, turn).items():
        with torch.no_grad():
            for p, value in zip(params, start, strict=True):
                p.copy_(value)
        opt = make()
        for grads in recorder.kept:
            for p, grad in zip(params, grads, strict=True):
                p.grad = grad.clone()
            opt.step()
        found |= {f"{name}: {key}": value for key, value in everything(model).items()}
    assert len(params) == 2 * LAYERS
    return found
