"""What ranks do with states in 16 bits and in 8-bit blocks, and with split weights: all bits are those of one process.

The gradients are given: every rank has the whole one, and the mean over 2 or 4 ranks is exact.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from constructors import OF_MATRICES, RULES, described
from distributed_models import STEPS, everything, strays
from distributed_saving import restore, store
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from neon.engine import use_backend
from neon.optimizers import LAMB, Adam, AdamW, Cautious, Centralized, Lookahead, Optimizer, ScheduleFree
from neon.torch import AttachedOptimizer

# Whole rows of blocks. On four ranks a part is smaller than what has states in blocks, one part is shorter, one empty.
SHAPES = {
    "ten rows": ((10, 512), torch.bfloat16),
    "six rows": ((6, 4, 256), torch.float32),
    "bias": ((5,), torch.bfloat16),
}
FORMATS: dict[str, dict[str, Any]] = {
    "int8": {"state_dtype": "int8", "stochastic_round": True},
    "bfloat16": {"state_dtype": "bfloat16", "stochastic_round": True},
    "int8, split": {"state_dtype": "int8", "master": "split"},
    "float32, split": {"master": "split"},
    "int8, lamb": {"state_dtype": "int8", "stochastic_round": True, "wdecay": 0.1},
    "int8, transforms": {"state_dtype": "int8", "wdecay": 0.1, "decay_form": "cautious"},
    "averaged": {"weight_average": 0.75, "state_dtype": {"exp_avg": "int8", "weight_average": "bfloat16"}},
    "schedule-free": {"master": "split", "state_dtype": {"exp_avg_sq": "int8"}},
}


def values(name: str, step: int) -> Tensor:
    """A whole gradient (or, for step -1, a parameter), the same everywhere."""
    shape, dtype = SHAPES[name]
    generator = torch.Generator().manual_seed(100 * step + 100 + [*SHAPES].index(name))
    return torch.randn(shape, generator=generator).to(dtype)


class Layer(nn.Module):
    """A weight, whose gradient is what it is called with."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(values(name, -1))

    def forward(self, grad: Tensor) -> Tensor:
        return (self.weight * grad).sum().float()


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: Layer(name) for name in SHAPES})

    def forward(self, step: int) -> Tensor:
        return torch.stack([layer(values(name, step)) for name, layer in self.layers.items()]).sum()


def start(way: str, form: str, name: str = "") -> tuple[nn.Module, Wide, AttachedOptimizer]:
    """The model as it runs on this rank, the model within, and its optimizer: of a rule by its name, or the form's."""
    model = run = Wide()
    if dist.get_world_size() > 1 and way == "data parallel":
        run = DistributedDataParallel(model)
    elif dist.get_world_size() > 1:
        shape = (2, dist.get_world_size() // 2) if way == "hybrid" else (dist.get_world_size(),)
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicate", "shard")[-len(shape) :])
        for layer in (*model.layers.values(), model):
            fully_shard(layer, mesh=mesh)
    if name:
        return run, model, described(name, **FORMATS[form]).attach(model)
    rule: Optimizer = (LAMB if "lamb" in form else AdamW)(learning_rate=0.01, **FORMATS[form])
    if form == "schedule-free":
        rule = ScheduleFree(rule)
    elif "transforms" in form:
        rule = Lookahead(Cautious(Centralized(rule)), k=3)
    return run, model, rule.attach(model)


def train(run: nn.Module, opt: AttachedOptimizer, steps: range) -> None:
    for step in steps:
        run(step).backward()
        opt.step()
        opt.zero_grad()


def low_states(way: str, form: str) -> Any:
    run, model, opt = start(way, form)
    train(run, opt, range(STEPS))
    found: dict[str, Any] = {"strays": strays(model, opt), **everything(model, opt)}
    if form in ("averaged", "schedule-free"):
        found["evaluated"] = evaluated(run, model, opt)
        found["switched"] = switched(run, opt)
        found["saved in between"] = saved_in_between(way, form, model, opt)
    return found


def every_rule(form: str) -> Any:
    """Each rule that is exported, sharded; what is loaded in between goes on with the same bits."""
    found: dict[str, Any] = {"strays": []}
    with use_backend("eager"):
        for name in (name for name in RULES if name not in OF_MATRICES):  # which take no vectors
            run, model, opt = start("sharded", form, name)
            train(run, opt, range(2))
            saved = copy.deepcopy((model.state_dict(), opt.state_dict()))
            train(run, opt, range(2, STEPS))
            again, fresh, resumed = start("sharded", form, name)
            fresh.load_state_dict(saved[0])
            resumed.load_state_dict(saved[1])
            train(again, resumed, range(2, STEPS))
            ended, other = everything(model, opt), everything(fresh, resumed)
            assert ended.keys() == other.keys()
            assert all(torch.equal(ended[key], other[key]) for key in ended), name
            found["strays"] += strays(model, opt)
            found |= {f"{name}: {key}": value for key, value in ended.items()}
    return found


def evaluated(run: nn.Module, model: nn.Module, opt: AttachedOptimizer) -> Tensor:
    """What the model computes with its weights, with their averages, and with its weights again."""
    with torch.no_grad():
        before = run(0)
        with opt.averaged(model):
            between = run(0)
        return torch.stack([before, between, run(0)])


def switched(run: nn.Module, opt: AttachedOptimizer) -> Tensor:
    """The same by `eval` and `train`, which know the model that the optimizer is attached to."""
    found = []
    with torch.no_grad():
        for change in (opt.train, opt.eval, opt.train):
            change()
            found.append(run(0))
    return torch.stack(found)


def saved_in_between(way: str, form: str, model: nn.Module, opt: AttachedOptimizer) -> dict[str, Tensor]:
    """What is resumed of what each rank saves while averages stand in the place of weights."""
    with opt.averaged(model):
        saved = copy.deepcopy((model.state_dict(), opt.state_dict()))
    _, fresh, resumed = start(way, form)
    fresh.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    return everything(fresh, resumed)


def low_checkpoint(way: str, form: str, kind: str) -> Any:
    """Saved after two steps; loaded by every size of world that has saved before."""
    world = dist.get_world_size()
    run, model, opt = start(way, form)
    train(run, opt, range(2))
    store(model, opt, kind, Path(f"low, {way}, {form}, {kind}, {world}"))
    train(run, opt, range(2, STEPS))
    found: dict[str, Any] = {"uninterrupted": everything(model, opt)}
    for saved_by in (4, 2, 1):
        path = Path(f"low, {way}, {form}, {kind}, {saved_by}")
        if saved_by >= world and path.exists():
            run, model, opt = start(way, form)
            unchanged = restore(model, opt, kind, path)
            train(run, opt, range(2, STEPS))
            found[f"from {saved_by}"] = {
                "dummy step": unchanged, "strays": strays(model, opt), **everything(model, opt),
            }  # fmt: skip
    return found


# Rows that are no whole blocks, and parts that are no whole rows.
CUT = {"odd rows": ((8, 900), 0), "columns": ((8, 1024), 1), "one row": ((8192,), 0)}


def cut(name: str) -> Any:
    """Blocks that shards would cut: their states are float32, also where one process asks for that."""
    shape, dim = CUT[name]
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    many = dist.get_world_size() > 1

    def lay(seed: int) -> Tensor:
        tensor = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        return distribute_tensor(tensor, mesh, [Shard(dim)], src_data_rank=None) if many else tensor

    p = nn.Parameter(lay(0))
    opt = Adam(learning_rate=0.01, state_dtype="int8" if many else None).attach([p])
    for step in range(STEPS):
        p.grad = lay(step + 1)
        opt.step()
    model = nn.ParameterDict({"p": p})
    return {"strays": strays(model, opt), **everything(model, opt)}


def cut_blocks() -> Any:
    """States in blocks that this layout would cut are refused."""
    p = nn.Parameter(torch.ones(8, 1024))
    p.grad = torch.ones(8, 1024)
    alone = Adam(state_dtype="int8").attach([p])
    alone.step()
    saved = alone.state_dict()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))

    def lay(tensor: Tensor) -> Tensor:
        return distribute_tensor(tensor, mesh, [Shard(1)], src_data_rank=None)

    state = saved["state"][0]
    for key in ("exp_avg", "exp_avg_sq"):
        state[key] = lay(state[key])
        state["scales"][key] = lay(state["scales"][key])
    opt = Adam(state_dtype="int8").attach([nn.Parameter(lay(torch.ones(8, 1024)))])
    return {"loaded": refusal(opt, saved), "copied": refusal(opt, codes_as_numbers(saved))}


def codes_as_numbers(saved: dict[str, Any]) -> dict[str, Any]:
    """What torch.distributed.checkpoint makes of blocks where it has float32 to load into."""
    state = {key: value.float() for key, value in saved["state"][0].items() if key != "scales"}
    return {**saved, "state": {0: state}}


def refusal(opt: AttachedOptimizer, saved: dict[str, Any]) -> str:
    try:
        opt.load_state_dict(saved)
    except ValueError as error:
        return str(error)
    return "nothing"
