"""Checkpoints through torch.distributed.checkpoint and its state dicts, and states of sharded tensors."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from checkpoint_runs import END, IN_STEPS, RUNS, SAVED, Run, fresh, give, rules
from constructors import shaped
from stepped_parameters import bits, by_name
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import neon.torch
from neon.optimizers import (
    Adam,
)
from neon.stepping.overrides import overrides_of
from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")


KINDS: dict[str, dict[str, bool]] = {
    "by name": {},
    "flat": {"flatten_optimizer_state_dict": True},
    "full": {"full_state_dict": True, "cpu_offload": True},
}
# Without any state, torch's own SGD fails there too; its schedulers and loss scalers are saved apart.
DISTRIBUTED = [name for name in RUNS if "torch's" not in name and name != "rounded to 10 bits"]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DISTRIBUTED)
def test_torchs_distributed_checkpoints(name: str, kind: str, tmp_path: Path) -> None:
    options = StateDictOptions(strict="their own" not in name, **KINDS[kind])  # frozen parameters have no state

    def parts(run: Run) -> dict[str, Any]:
        return {"model": run.model.state_dict(), "opt": get_optimizer_state_dict(run.model, run.opt, options=options)}

    run, other = fresh(name).train(range(SAVED)), fresh(name)
    dcp.save(parts(run), storage_writer=dcp.FileSystemWriter(tmp_path), no_dist=True)
    loaded = parts(other)
    dcp.load(loaded, storage_reader=dcp.FileSystemReader(tmp_path), no_dist=True)
    other.model.load_state_dict(loaded["model"])
    set_optimizer_state_dict(other.model, other.opt, loaded["opt"], options=options)
    for each in (run, other):
        each.train(range(SAVED, END))
    assert bits([other.tensors(), other.groups()]) == bits([run.tensors(), run.groups()])


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_torchs_distributed_checkpoints_bring_what_was_set_in_mid_run(kind: str, tmp_path: Path) -> None:
    options = StateDictOptions(**KINDS[kind])
    run, other = fresh("a mapping"), fresh("a mapping")
    run.train(range(SAVED))
    run.opt.freeze("conv.bias")
    run.opt.set("lr", 0.5, layers="turned")
    run.opt.set("lr_scale", 0.5)
    dcp.save(get_optimizer_state_dict(run.model, run.opt, options=options), checkpoint_id=tmp_path, no_dist=True)
    loaded = get_optimizer_state_dict(other.model, other.opt, options=options)
    dcp.load(loaded, checkpoint_id=tmp_path, no_dist=True)
    other.model.load_state_dict(run.model.state_dict())
    set_optimizer_state_dict(other.model, other.opt, loaded, options=options)
    assert any(map(overrides_of, run.opt.param_groups))
    for each in (run, other):
        each.train(range(SAVED, END))
    assert bits([other.tensors(), other.groups()]) == bits([run.tensors(), run.groups()])


@pytest.mark.parametrize("kind", KINDS)
def test_torchs_distributed_checkpoints_find_parameters_in_another_order(kind: str) -> None:
    options = StateDictOptions(**KINDS[kind])
    runs = []
    for order in (1, -1):
        model = nn.ModuleDict({"body": nn.Linear(3, 2), "head": nn.Linear(2, 3)})
        give(model, 0)
        runs.append(Run(model, Adam(learning_rate=0.1).attach([*model.named_parameters()][::order])))
        runs[-1].opt.step()
    run, other = runs
    saved = copy.deepcopy(get_optimizer_state_dict(run.model, run.opt, options=options))
    other.model.load_state_dict(run.model.state_dict())
    set_optimizer_state_dict(other.model, other.opt, saved, options=options)
    for each in runs:
        give(each.model, 1)
        each.opt.step()
    assert by_name(other.opt) == by_name(run.opt)
    assert other.opt.param_groups[0]["param_names"] == run.opt.param_groups[0]["param_names"][::-1]


def in_groups(*sizes: int, lr: float | None = None) -> Run:
    """Four layers, their weights in groups of these sizes, the rates 1, 2, ... times `lr` or all 1; made alike."""
    model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(4)))
    give(model, 0)
    named, groups = [*model.named_parameters()], []
    for place, size in enumerate(sizes, 1):
        groups.append({"params": named[:size], "lr": lr * place if lr else 1.0})
        del named[:size]
    run = Run(model, neon.torch.AdamW(groups))
    run.opt.step()
    run.opt.zero_grad()
    return run


@pytest.mark.parametrize("flat", [False, True], ids=["by name", "flat"])
@pytest.mark.parametrize(
    ("saved", "here"), [((4,), (1, 3)), ((2, 2), (4,)), ((2, 2), (1, 3)), ((1, 1, 2), (2, 2))], ids=str
)
def test_torchs_distributed_checkpoints_do_not_fill_other_groups_by_half(
    saved: tuple[int, ...], here: tuple[int, ...], flat: bool
) -> None:
    """torch gives a group of the checkpoint to one group here, or of several groups the values of one to all."""
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    run, other = in_groups(*saved, lr=0.25), in_groups(*here)
    found = copy.deepcopy(get_optimizer_state_dict(run.model, run.opt, options=options))
    if flat and saved == (4,):  # flat: each group finds all the values of its first parameter
        set_optimizer_state_dict(other.model, other.opt, found, options=options)
        assert [group["lr"] for group in other.opt.param_groups] == [0.25] * 2
        return
    with pytest.raises(ValueError, match=r"has no lr, .* Of other groups than|its values are those of a group"):
        set_optimizer_state_dict(other.model, other.opt, found, options=options)
    assert {group["lr"] for group in other.opt.param_groups} == {1.0}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.parametrize("kind", ["by name", "flat"])
def test_torchs_distributed_checkpoints_make_no_states_beside_gradients(kind: str, tmp_path: Path) -> None:
    options = StateDictOptions(**KINDS[kind])
    run, other = in_groups(4, lr=0.25), in_groups(4)
    dcp.save(get_optimizer_state_dict(run.model, run.opt, options=options), checkpoint_id=tmp_path, no_dist=True)

    def load(model: nn.Module, opt: AttachedOptimizer) -> None:
        loaded = get_optimizer_state_dict(model, opt, options=options)
        dcp.load(loaded, checkpoint_id=tmp_path, no_dist=True)
        set_optimizer_state_dict(model, opt, loaded, options=options)

    fresh_one = neon.torch.AdamW(other.model.named_parameters())
    give(other.model, 1)
    with pytest.raises(ValueError, match=r"parameters here have gradients.* Call zero_grad\(\) before get_optim"):
        load(other.model, fresh_one)
    fresh_one.zero_grad()
    load(other.model, fresh_one)
    for p, q in zip(run.model.parameters(), other.model.parameters(), strict=True):
        assert bits(fresh_one.state[q]) == bits(run.opt.state[p])


def test_states_of_dtensors(alone: DeviceMesh) -> None:
    def make(*, sharded: bool) -> AttachedOptimizer:
        w = torch.arange(6.0).view(3, 2)
        param = nn.Parameter(distribute_tensor(w, alone, [Shard(0)]) if sharded else w)
        param.grad = torch.ones_like(param)
        opt = Adam().attach([("w", param)])
        opt.step()
        return opt

    run, other, whole = make(sharded=True), make(sharded=True), make(sharded=False)
    run.step()
    other.load_state_dict(run.state_dict())
    averages = []
    for opt in (run, other):
        opt.step()
        [state] = opt.state.values()
        assert isinstance(state["exp_avg"], DTensor)
        assert state["exp_avg"].placements == (Shard(0),)
        averages.append(state["exp_avg"].to_local())
    assert averages[0].data_ptr() != averages[1].data_ptr()
    assert bits(averages[0]) == bits(averages[1])
    for opt, saved, message in (
        (
            run,
            whole,
            "w: exp_avg is not distributed in the checkpoint, the parameter is distributed: load by torch.dist",
        ),
        (whole, run, "w: exp_avg is distributed in the checkpoint, the parameter is not distributed"),
    ):
        with pytest.raises(ValueError, match=message):
            opt.load_state_dict(saved.state_dict())
        opt.step()


HARMFUL: dict[str, dict[str, Any]] = {
    "clipped, decayed, scheduled, split": {
        "param_clip_value": 0.5,
        "wdecay": 0.1,
        "schedule": IN_STEPS,
        "master": "split",
    },
    "rounded": {"stochastic_round": 10, "gradient_clip_norm": 1.0},
}


class Delicate(nn.Module):
    """Values that an update would change, were it by nothing."""

    def __init__(self, rule: str) -> None:
        super().__init__()
        self.wide = nn.Parameter(torch.tensor([-0.0, 0.0, 1 / 3, -3.0]).view(shaped(rule, 4)))
        self.low = nn.Parameter(torch.tensor([-0.0, 2.0], dtype=torch.bfloat16).view(shaped(rule, 2)))


@pytest.mark.parametrize("option", HARMFUL)
@pytest.mark.parametrize("rule", rules())
def test_the_step_that_makes_states_for_torch_changes_nothing(rule: str, option: str) -> None:
    """torch.distributed.checkpoint takes one with zero gradients and rates, to have states to load into."""
    runs = [Run(model, rules()[rule](**HARMFUL[option]).attach(model)) for model in (Delicate(rule), Delicate(rule))]
    before = bits([list(runs[0].model.parameters()), runs[0].groups()])
    found = get_optimizer_state_dict(runs[0].model, runs[0].opt)
    assert bits([list(runs[0].model.parameters()), runs[0].groups()]) == before
    assert {name: state["step"].item() for name, state in found["state"].items()} == {"wide": 0, "low": 0}
    for run in runs:
        run.train(range(3))
    assert bits([runs[0].tensors(), runs[0].groups()]) == bits([runs[1].tensors(), runs[1].groups()])
