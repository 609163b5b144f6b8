"""What every rank of a distributed run does: each case a function that gives what to compare.

On one rank the same cases run without any distribution: that is what the others are compared with.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from distributed_models import (
    RULES,
    STEPS,
    Run,
    batch,
    data_parallel,
    everything,
    make,
    net,
    spread,
    strays,
    train,
    whole,
)
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, distribute_tensor

from neon.optimizers import LAMB, Adam, GradientDescentMomentum, MultiOptimizer, Prodigy

# -- training --------------------------------------------------------------------------------------


def loss_curve(way: str, rule: str) -> Any:
    model = net()
    run = spread(way, model)
    opt = make(rule, model)
    return {"losses": train(run, opt, range(STEPS)), "strays": strays(model, opt), **everything(model, opt)}


def low_precision(rule: str, dtype: str) -> Any:
    """Replicas; on one rank, each batch in halves, as two ranks have them."""
    model = net(getattr(torch, dtype))
    run = Run(model, (0, 1), 2) if dist.get_world_size() == 1 else data_parallel(model)
    opt = make(rule, model)
    return {"losses": train(run, opt, range(STEPS)), **everything(model, opt)}


def in_backward(previous: float | None, rule: str | None = None) -> Any:
    """Each shard is updated as its gradient arrives."""
    model = net()
    run = spread("sharded", model)
    chosen = Adam(learning_rate=0.05) if rule is None else RULES[rule]()
    chosen.gradient_clip_norm = None
    opt = chosen.attach(model, in_backward=True, gradient_clip_previous_norm=previous)
    return {"losses": train(run, opt, range(STEPS)), **everything(model, opt)}


def flat(rule: str) -> Any:
    """FSDP of the first kind, whose parameters are parts of flat ones: plain tensors to the optimizer."""
    model = net()
    world = dist.get_world_size()
    if world == 1:
        return {"losses": train(Run(model), RULES[rule]().attach(model), range(STEPS)), **everything(model)}
    run = Run(FullyShardedDataParallel(model, device_id=torch.device("cpu")), (dist.get_rank(),), world)
    opt = RULES[rule]().attach(run.model.parameters(), partitioned=True)
    losses = train(run, opt, range(STEPS))
    with FullyShardedDataParallel.summon_full_params(run.model):
        found = everything(run.model)
    return {"losses": losses, **{name.replace("_fsdp_wrapped_module.", ""): t for name, t in found.items()}}


def flat_refused() -> Any:
    """Rules with norms of tensors that nobody has, and with sums over all of which this rank has a part."""
    model = FullyShardedDataParallel(net(), device_id=torch.device("cpu"), use_orig_params=True)
    found = {}
    for rule, options in ((LAMB(), {"partitioned": True}), (Prodigy(), {}), (Adam(), {})):
        try:
            rule.attach(model, **options)
            found[type(rule).__name__] = "nothing"
        except ValueError as error:
            found[type(rule).__name__] = str(error)
    return found


def by_class() -> Any:
    """fully_shard gives modules other classes: keys still find them, and layers stay under control."""
    model = net()
    run = spread("sharded", model)
    kinds = {"default": GradientDescentMomentum(0.1, 0.9), "Linear": Adam(learning_rate=0.05), "first": None}
    opt = MultiOptimizer(kinds, gradient_clip_norm=0.5).attach(model)
    opt.freeze("second.bias")
    opt.set("lr", 0.01, layers="last")
    return {"losses": train(run, opt, range(STEPS)), **everything(model, opt)}


def from_rank_zero() -> Any:
    """Replicas of which one has trained before: it gives the others its parameters and states."""
    model = net()
    opt = make("mapping", model)
    if dist.get_rank() == 0:
        train(Run(model), opt, range(2))
    given = [(model.state_dict(), opt.state_dict()) if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(given)
    assert given[0]
    model.load_state_dict(given[0][0])
    opt.load_state_dict(given[0][1])
    return {"losses": train(spread("data parallel", model), opt, range(2, STEPS)), **everything(model, opt)}


def documented() -> Any:
    """The example of docs/pytorch.md; all ranks have the same batches."""
    text = (Path(__file__).parent.parent / "docs" / "pytorch.md").read_text(encoding="utf-8")
    [block] = [block for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S) if "train_sharded" in block]
    names: dict[str, Any] = {}
    exec(block, names)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    before = everything(model)
    names["train_sharded"](model, [batch(step, torch.float64)[0] for step in range(STEPS)])
    assert all(not torch.equal(before[name], t) for name, t in everything(model).items())
    return everything(model)


# -- the same gradients, to the bit ----------------------------------------------------------------

# Of the mesh's dimensions, how parameters and how gradients lie on them.
LAYOUTS: dict[str, tuple[list[Placement], list[Placement]]] = {
    "rows": ([Shard(0)], [Shard(0)]),
    "columns": ([Shard(1)], [Shard(1)]),
    "copies": ([Replicate()], [Replicate()]),
    "copies of rows": ([Replicate(), Shard(0)], [Replicate(), Shard(0)]),
    "rows and columns": ([Shard(0), Shard(1)], [Shard(0), Shard(1)]),
    "rows of rows": ([Shard(0), Shard(0)], [Shard(0), Shard(0)]),
    "unreduced gradients": ([Replicate()], [Partial()]),
    "gathered gradients": ([Shard(0)], [Replicate()]),
}
SHAPES = {
    "first.weight": ((3, 4), torch.float32),
    "first.bias": ((8,), torch.float32),
    "last.weight": ((6, 8), torch.bfloat16),
    "last.bias": ((2, 4), torch.float32),
    "gain": ((4,), torch.float32),
}


def values(name: str, step: int) -> Tensor:
    """A whole gradient (or, for step -1, a parameter), the same everywhere."""
    shape, dtype = SHAPES[name]
    generator = torch.Generator().manual_seed(100 * step + 100 + [*SHAPES].index(name))
    return torch.randn(shape, generator=generator).to(dtype)


def place(tensor: Tensor, mesh: Any, placements: list[Placement] | None) -> Tensor:
    """The tensor on a mesh; a dimension that it does not have is not cut."""
    if placements is None:
        return tensor
    if placements == [Partial()]:
        return DTensor.from_local(tensor / dist.get_world_size(), mesh, placements)
    cut = [Replicate() if isinstance(p, Shard) and p.dim >= tensor.dim() else p for p in placements]
    return distribute_tensor(tensor, mesh, cut, src_data_rank=None)


def placements(layout: str) -> dict[str, Any]:
    """The mesh that each parameter is on, how it lies there, and how its gradients lie; one is on none."""
    world = dist.get_world_size()
    found: dict[str, Any] = dict.fromkeys(SHAPES, (None, None, None))
    if world == 1:
        return found
    grid = init_device_mesh("cpu", (2, world // 2) if world % 2 == 0 else (1, world), mesh_dim_names=("a", "b"))
    line = init_device_mesh("cpu", (world,))
    if layout == "several meshes":
        rows, copies = [Shard(0)], [Replicate()]
        found["first.weight"] = (grid, rows * 2, rows * 2)
        found["first.bias"] = (line, rows, rows)
        found["last.weight"] = (grid["b"], rows, rows)
        found["last.bias"] = (line, copies, copies)
        return found
    at, grad_at = LAYOUTS[layout]
    return {**dict.fromkeys(SHAPES, (grid if len(at) == 2 else line, at, grad_at)), "gain": found["gain"]}


def same_gradients(layout: str, rule: str, poison: str | None) -> Any:
    """Steps with gradients that are given; with `poison` one element of that gradient is NaN in the second step."""
    kinds = placements(layout)
    params = {name: nn.Parameter(place(values(name, -1), *kinds[name][:2])) for name in SHAPES}
    options = {"skip_nonfinite": True} if poison else {}
    opt = RULES[rule]().attach(params.items(), **options)
    for step in range(STEPS):
        for name, p in params.items():
            grad = values(name, step)
            if name == poison and step == 1:
                grad.view(-1)[-1] = torch.nan
            mesh, _, grad_at = kinds[name]
            p.grad = place(grad, mesh, grad_at)
        opt.step()
    model = nn.ParameterDict({name.replace(".", "_"): p for name, p in params.items()})
    skips = {f"skipped for {opt.last_nonfinite}": opt.skipped_steps} if poison else {}
    return {"strays": strays(model, opt), **skips, **everything(model, opt)}


def alike() -> Any:
    """A bfloat16 parameter whose columns and gradients are all the same, before anything is rounded at random."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    p = nn.Parameter(place(torch.ones(8, 4, dtype=torch.bfloat16), mesh, [Shard(1)]))
    p.grad = place(torch.ones(8, 4, dtype=torch.bfloat16), mesh, [Shard(1)])
    Adam(learning_rate=0.001, stochastic_round=True).attach([p]).step()
    return {"columns": whole(p)}


# -- mixed precision -------------------------------------------------------------------------------


def scaled(way: str, rule: str) -> Any:
    model = net()
    run = spread(way, model)
    opt = make(rule, model)
    scaler = torch.amp.GradScaler("cpu", growth_interval=2)
    losses = train(run, opt, range(STEPS), scaler)
    return {"losses": losses, "scale": scaler.get_scale(), **everything(model, opt)}


# -- the harness itself ----------------------------------------------------------------------------


def failing() -> Any:
    """One rank fails while the others wait for it."""
    if dist.get_rank() == dist.get_world_size() - 1:
        raise RuntimeError("no such luck")
    dist.barrier()
