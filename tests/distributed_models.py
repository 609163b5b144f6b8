"""A small model, rules that train it, the ways in which PyTorch spreads it over ranks, and its training there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import neon.torch
from neon.engine.program.spaces import ROW_PAIRS, ROWS
from neon.optimizers import (
    GROUP,
    LAMB,
    OPTIMIZER,
    Adafactor,
    Adam,
    AdamW,
    Cautious,
    Centralized,
    GradientDescentMomentum,
    Lookahead,
    MultiOptimizer,
    Optimizer,
    Prodigy,
    ScheduleFree,
    State,
    WarmupCosine,
)
from neon.optimizers.functions import norm, total
from neon.optimizers.matrix_functions import gram, orthogonalize, rotated

STEPS, SAMPLES = 4, 12  # which divide by 2, 3 and 4


class Net(nn.Module):
    """Three rows in the first layer: on two ranks 2 and 1, on four an empty shard."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 3), nn.Linear(3, 4), nn.Linear(4, 2)
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.second(self.first(x).tanh()).tanh()) * self.gain


def net(dtype: torch.dtype = torch.float64) -> Net:
    torch.manual_seed(0)
    return Net().to(dtype)


def batch(step: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Samples and targets of a step, the same everywhere."""
    generator = torch.Generator().manual_seed(step)
    x, y = (torch.randn(SAMPLES, size, generator=generator, dtype=torch.float64) for size in (6, 2))
    return x.to(dtype), (10 * y).to(dtype)


# -- rules -----------------------------------------------------------------------------------------


class Lars(Optimizer):
    """Layer-wise rates (You et al. 2017): the norms are those of a whole tensor, wherever its parts are."""

    @staticmethod
    def rule(w: Any, g: Any, velocity: Any, *, lr: Any = 0.1, momentum: Any = 0.9, trust: Any = 0.1) -> Any:
        velocity = momentum * velocity - lr * trust * norm(w) / (norm(g) + 1e-6) * g
        return w + velocity, velocity


class Counted(Optimizer):
    """One number of all tensors, and one of each group, which counts the steps in which that takes part."""

    @staticmethod
    def rule(  # type: ignore[no-untyped-def]
        w, g, d: Any = State("d0", of=OPTIMIZER), k: Any = State(of=GROUP), *, lr=1e-3, d0=0.5
    ):
        d = d + total(g, over=OPTIMIZER)
        return w - lr * d * (k + 1) * g, d, k + 1


class Orthogonal(Optimizer):
    """Momentum, of matrices turned by a mean of g·gᵀ and orthogonalized: calls, and a state of pairs."""

    @staticmethod
    def rule(  # type: ignore[no-untyped-def]
        w, g, momentum_buffer: Any, pairs: Any = State(of=ROW_PAIRS), *, matrix, lr=0.05, momentum=0.9
    ):
        momentum_buffer = momentum * momentum_buffer + (1 - momentum) * g
        if matrix:
            pairs = momentum * pairs + (1 - momentum) * gram(g, ROWS)
            return w - lr * orthogonalize(rotated(momentum_buffer, pairs), steps=2), momentum_buffer, pairs
        return w - lr * momentum_buffer, momentum_buffer, pairs


def mapping() -> MultiOptimizer:
    kinds = {
        "default": AdamW(
            wdecay=0.1, schedule=WarmupCosine(1, 10, unit="steps"), stochastic_round=True, learning_rate=0.05
        ),
        "first": GradientDescentMomentum(0.1, 0.9, wdecay=0.01, stochastic_round=True),
    }
    return MultiOptimizer(kinds, gradient_clip_norm=0.5)


def sums() -> MultiOptimizer:
    """Two that have a size of steps each, which they sum over all of their tensors, beside norms of tensors."""
    kinds = {
        "first": Prodigy(d0=0.01, wdecay=0.1, master="split"),
        "last": LAMB(learning_rate=0.05, gradient_clip_norm=0.5, stochastic_round=True),
        "default": Prodigy(d0=0.02, growth_rate=1.5, gradient_clip_norm=0.5),
    }
    return MultiOptimizer(kinds)


# On float32 and float64 parameters `stochastic_round=True` changes nothing.
RULES: dict[str, Callable[[], Optimizer]] = {
    "adam": lambda: Adam(learning_rate=0.05, stochastic_round=True),
    "momentum": lambda: GradientDescentMomentum(0.1, 0.9, True, 0.01, gradient_clip_norm=0.5),
    "mapping": mapping,
    "adafactor": lambda: Adafactor(0.05, wdecay=0.1, gradient_clip_norm=0.5, stochastic_round=True),
    "own": lambda: Lars(gradient_clip_norm=2.0, stochastic_round=True),
    "prodigy": lambda: Prodigy(d0=0.01, use_bias_correction=True, master="split"),
    "lamb": lambda: LAMB(learning_rate=0.05, stochastic_round=True),
    "sums": sums,
    "free": lambda: ScheduleFree(AdamW(learning_rate=0.05, wdecay=0.1)),
    "counted": Counted,
    "orthogonal": lambda: Orthogonal(gradient_clip_norm=0.5),
    "transforms": lambda: Lookahead(
        Cautious(Centralized(AdamW(learning_rate=0.05, wdecay=0.1, decay_form="corrected", gradient_clip_norm=0.5))),
        k=2,
    ),
}


class TorchSGD(torch.optim.SGD):
    """torch's own rule and clipping, as the yardstick: what a distribution itself changes."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)

    def step(self, closure: Any = None) -> Any:
        grads = [p.grad for p in self.param_groups[0]["params"] if p.grad is not None]
        norms = [whole(torch.linalg.vector_norm(grad)) for grad in grads]  # on different meshes: one for each
        for grad in grads:
            grad.mul_((0.5 / torch.stack(norms).norm()).clamp(max=1.0))
        return super().step(closure)


def make(rule: str, model: nn.Module) -> torch.optim.Optimizer:
    if rule == "torch":
        return TorchSGD(model)
    if rule == "drop-in":
        return neon.torch.AdamW(model.named_parameters(), lr=0.05, weight_decay=0.1, gradient_clip_norm=0.5)
    return RULES[rule]().attach(model)


# -- ways to distribute ----------------------------------------------------------------------------


@dataclass
class Run:
    """A model as it runs on this rank: which parts of every batch are its own, and the ranks that have the others.

    `unreduced` are parameters that are not sharded: their gradients are left to the training loop.
    """

    model: nn.Module
    own: tuple[int, ...] = (0,)
    parts: int = 1
    group: Any = None
    unreduced: tuple[nn.Parameter, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype


def data_parallel(model: Net) -> Run:
    return Run(DistributedDataParallel(model), (dist.get_rank(),), dist.get_world_size())


def _shard(model: Net, mesh: Any, *ignored: nn.Parameter) -> None:
    for layer in (model.first, model.second, model.last):
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, ignored_params={*ignored})


def sharded(model: Net) -> Run:
    _shard(model, init_device_mesh("cpu", (dist.get_world_size(),)))
    return Run(model, (dist.get_rank(),), dist.get_world_size())


def hybrid(model: Net) -> Run:
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("replicate", "shard"))
    _shard(model, mesh, model.gain)
    return Run(model, (dist.get_rank(),), dist.get_world_size(), unreduced=(model.gain,))


def tensor_parallel(model: Net, mesh: Any = None) -> Run:
    plan = {"second": ColwiseParallel(), "last": RowwiseParallel()}
    parallelize_module(model, mesh or init_device_mesh("cpu", (dist.get_world_size(),)), plan)
    return Run(model)


def grid(model: Net) -> Run:
    mesh = init_device_mesh("cpu", (2, dist.get_world_size() // 2), mesh_dim_names=("data", "tensor"))
    tensor_parallel(model, mesh["tensor"])
    _shard(model, mesh["data"], model.gain)
    return Run(model, (mesh.get_local_rank("data"),), 2, mesh.get_group("data"), (model.gain,))


WAYS: dict[str, Callable[[Net], Run]] = {
    "data parallel": data_parallel,
    "sharded": sharded,
    "hybrid": hybrid,
    "tensor parallel": tensor_parallel,
    "grid": grid,
}


def spread(way: str, model: Net) -> Run:
    """The model as it runs on this rank; on one rank nothing is distributed."""
    return Run(model) if dist.get_world_size() == 1 else WAYS[way](model)


# -- training --------------------------------------------------------------------------------------


def train(run: Run, opt: torch.optim.Optimizer, steps: Iterable[int], scaler: Any = None) -> list[float]:
    """Losses of the whole batches, of which each rank takes its parts; with a scaler, the second batch overflows."""
    losses = []
    for step in steps:
        total = torch.zeros((), dtype=torch.float64)
        for part in run.own:
            x, y = (t.chunk(run.parts)[part] for t in batch(step, run.dtype))
            if scaler and step == 1 and part == 0:
                y = y * torch.inf
            loss = (run.model(x) - y).square().mean()
            (scaler.scale(loss) if scaler else loss / len(run.own)).backward()
            total += loss.detach() / run.parts
        for p in run.unreduced:
            dist.all_reduce(p.grad, group=run.group)
            p.grad /= run.parts
        if scaler:
            scaler.step(opt)
            scaler.update()
        else:
            opt.step()
        opt.zero_grad()
        if len(run.own) < run.parts:
            dist.all_reduce(total, group=run.group)
        losses.append(total.item())
    return losses


# -- what is compared ------------------------------------------------------------------------------


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on every rank."""
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).detach().clone()


def numbers(opt: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The numbers of groups that persist."""
    return {
        f"group {place} {name}": torch.tensor(float(group[name]), dtype=torch.float64)
        for place, group in enumerate(opt.param_groups)
        for name in ("d", "d_max", "d_numerator", "k", "lr_max", "weight_sum")
        if name in group
    }


def everything(model: nn.Module, opt: torch.optim.Optimizer | None = None) -> dict[str, Tensor]:
    """Parameters, states and numbers of groups, whole, by name; low bits as words: as numbers some are NaN."""
    found = numbers(opt) if opt else {}
    for name, p in model.named_parameters():
        found[name] = whole(p)
        state = opt.state[p] if opt else {}
        found |= {f"{name} {key}": whole(value) for key, value in _tensors(state)}
        if "low_bits" in state:
            found[f"{name} low_bits"] = found[f"{name} low_bits"].view(torch.int16)
    return found


def strays(model: nn.Module, opt: torch.optim.Optimizer) -> list[str]:
    """States that do not lie where their parameter lies, each rank with its part alone."""
    return [
        f"{name} {key}"
        for name, p in model.named_parameters()
        for key, value in _tensors(opt.state[p])
        if (not _is_square_of(value, p, key) if key in _PAIRS else value.dim() and _is_astray(value, p, key))
    ]


# Along which side of a matrix a state has a number for each pair.
_PAIRS = {
    **dict.fromkeys(("pairs", "left", "left_basis", "left_root"), 0),
    **dict.fromkeys(("right", "right_basis", "right_root"), 1),
}


def _is_square_of(state: Tensor, param: Tensor, key: str) -> bool:
    """Whether a state of pairs is cut by rows over the processes that have parts of its parameter."""
    side = (param.shape[0], math.prod(param.shape[1:]))[_PAIRS[key]]
    if state.shape != (side, side) or not isinstance(param, DTensor):
        return state.shape == (side, side) and not isinstance(state, DTensor)
    cuts = tuple(Replicate() if p.is_replicate() else Shard(0) for p in param.placements)
    return isinstance(state, DTensor) and (state.placements, state.device_mesh) == (cuts, param.device_mesh)


def _is_astray(state: Tensor, param: Tensor, key: str) -> bool:
    return _place(state, "scales" in key) != _place_of(param, key)


# Along which dimension, from the last, a state has one value.
_LOST = {"row_var": 1, "col_var": 2}


def _place_of(param: Tensor, key: str) -> Any:
    """Where a state belongs: with its parameter, of which each process has what is known of whole rows or columns."""
    place = _place(param, "scales" in key)
    if key == "row_sq":  # of the rows of the matrix of a parameter's first dimension by all others
        lost = [*range(1, param.dim())]
    elif key in _LOST:
        lost = [param.dim() - _LOST[key]]
    else:
        return place
    if not isinstance(param, DTensor):
        return torch.Size([1 if dim in lost else side for dim, side in enumerate(place)])
    shape, local, placements, mesh = place
    sizes = (torch.Size([1 if dim in lost else side for dim, side in enumerate(sides)]) for sides in (shape, local))
    return (*sizes, tuple(Replicate() if getattr(p, "dim", None) in lost else p for p in placements), mesh)


def _tensors(state: Any) -> list[tuple[str, Tensor]]:
    """The tensors of a state by name, those of the dicts in it too."""
    nested = [(f"{key} {name}", t) for key, v in state.items() if isinstance(v, dict) for name, t in v.items()]
    return [*((key, v) for key, v in state.items() if isinstance(v, Tensor)), *nested]


def _place(tensor: Tensor, by_rows: bool) -> Any:
    """Where a tensor lies; of blocks, which rows."""
    shape = tensor.shape[:1] if by_rows else tensor.shape
    if not isinstance(tensor, DTensor):
        return shape
    local = tensor.to_local().shape
    return shape, local[:1] if by_rows else local, tensor.placements, tensor.device_mesh
