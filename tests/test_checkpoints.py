"""Checkpoints of attached optimizers: resumed runs, matching by name, what is refused, torch's own tools."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import checkpoint_runs
import pytest
import torch
import torch.distributed.checkpoint as dcp
from checkpoint_runs import END, IN_STEPS, RUNS, SAVED, Run, fresh, give, rules
from torch import distributed, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

import neon.torch
from neon.optimizers import (
    Adam,
    AdamW,
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
)
from neon.stepping.overrides import as_text, overrides_of
from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")


def bits(value: Any) -> Any:
    """A value of which two are equal only where every bit of every tensor is."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.detach().flatten().view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {key: bits(item) for key, item in value.items()}
    return [bits(item) for item in value] if isinstance(value, (list, tuple)) else value


def parameters(shapes: dict[str, tuple[int, ...]]) -> dict[str, nn.Parameter]:
    """Named parameters, each with values and a gradient that go by its name."""
    made = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        made[name] = nn.Parameter(torch.randn(shape, generator=generator))
        made[name].grad = torch.randn(shape, generator=generator)
    return made


def stepped(optimizer: Optimizer, *, named: bool = True, **shapes: tuple[int, ...]) -> AttachedOptimizer:
    """The optimizer over parameters of these shapes, after a step."""
    made = parameters(shapes)
    opt = optimizer.attach(list(made.items()) if named else list(made.values()))
    opt.step()
    return opt


def by_name(opt: AttachedOptimizer) -> dict[str, Any]:
    """Bits of parameters and states, by the names of the parameters."""
    group = opt.param_groups[0]
    return {n: bits([p, opt.state[p]]) for n, p in zip(group["param_names"], group["params"], strict=True)}


# -- going on --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of each run: where it ended, and where it ended after a new process had taken it up in the middle."""
    folder = tmp_path_factory.mktemp("runs")
    ends = {}
    for number, name in enumerate(RUNS):
        run = fresh(name).train(range(SAVED))
        run.save(folder / f"{number}.pt")
        run.train(range(SAVED, END))
        ends[name] = bits([run.tensors(), run.groups()])
    script = Path(checkpoint_runs.__file__)
    subprocess.run([sys.executable, "-W", "error", str(script), str(folder)], check=True, timeout=120)
    return {name: (ends[name], bits(torch.load(folder / f"{number} resumed.pt"))) for number, name in enumerate(RUNS)}


@pytest.mark.parametrize("name", RUNS)
def test_a_new_process_goes_on_with_the_same_bits(name: str, resumed: dict[str, Any]) -> None:
    expected, found = resumed[name]
    assert found == expected


def through_state_dict(run: Run, name: str) -> Run:
    """Taken up in mid-run: what an optimizer had before must not matter."""
    other = fresh(name).train(range(2))
    for part, theirs in zip((other.model, other.opt, *other.others), (run.model, run.opt, *run.others), strict=True):
        part.load_state_dict(theirs.state_dict())
    return other


WAYS: dict[str, Callable[[Run, str], Run]] = {
    "state_dict": through_state_dict,
    "pickle": lambda run, _: pickle.loads(pickle.dumps(run)),
    "deepcopy": lambda run, _: copy.deepcopy(run),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [name for name in RUNS if "torch's" not in name])
def test_a_copy_goes_on_with_the_same_bits_and_shares_nothing(name: str, way: str) -> None:
    run = fresh(name).train(range(SAVED))
    other = WAYS[way](run, name)
    assert bits([other.tensors(), other.groups()]) == bits([run.tensors(), run.groups()])
    kept = bits(run.tensors())
    other.train(range(SAVED, END))
    assert bits(run.tensors()) == kept
    run.train(range(SAVED, END))
    assert bits([other.tensors(), other.groups()]) == bits([run.tensors(), run.groups()])


@pytest.mark.parametrize("way", ["pickle", "deepcopy"])
def test_a_copy_has_every_attribute(way: str) -> None:
    run = fresh("a mapping").train(range(2))
    other = WAYS[way](run, "")
    assert set(vars(other.opt)) == set(vars(run.opt))
    assert repr(other.opt) == repr(run.opt)
    assert repr(other.opt.description) == repr(run.opt.description)
    plain = {k: v for k, v in vars(run.opt).items() if isinstance(v, (bool, int, float, str))}
    assert {k: vars(other.opt)[k] for k in plain} == plain


def test_states_keep_dtype_and_layout_and_are_copies() -> None:
    """float32 averages of bfloat16 parameters, channels last, transposed; one dict for two optimizers."""
    run = fresh("Adam").train(range(SAVED))
    saved = copy.deepcopy(run.opt.state_dict())
    before = bits(saved)
    for other in (fresh("Adam"), fresh("Adam").train(range(2))):
        other.opt.load_state_dict(state_dict=saved)
        for p, q in zip(run.model.parameters(), other.model.parameters(), strict=True):
            assert bits(other.opt.state[q]) == bits(run.opt.state[p])
            for key, value in run.opt.state[p].items():
                assert other.opt.state[q][key].stride() == value.stride()
        other.train(range(SAVED, END))
        assert bits(saved) == before
    assert {s["exp_avg"].dtype for s in saved["state"].values()} == {torch.float32, torch.float64}


def test_state_is_made_of_torchs_names_tensors_and_numbers() -> None:
    run = fresh("Adam").train(range(2))
    [group] = run.opt.param_groups
    for number, p in enumerate(group["params"]):
        state = run.opt.state_dict()["state"][number]
        assert type(state) is dict
        assert set(state) == {"step", "exp_avg", "exp_avg_sq"}
        assert state["step"].shape == ()
        assert state["step"].dtype == torch.float32
        assert state["exp_avg"].shape == state["exp_avg_sq"].shape == p.shape


def test_a_state_dict_from_before_the_first_step() -> None:
    opt = stepped(Adam(), w=(2,))
    [w] = opt.param_groups[0]["params"]
    before = w.detach().clone()
    opt.load_state_dict(Adam(learning_rate=0.5).attach([("w", nn.Parameter(torch.zeros(2)))]).state_dict())
    assert (opt.param_groups[0]["lr"], dict(opt.state)) == (0.5, {})
    opt.step()  # a first one again: by the whole rate, against the gradient's sign
    torch.testing.assert_close(w.detach(), before - 0.5 * w.grad.sign())


def test_tensors_may_be_moved_and_put_back() -> None:
    """As Lightning does after loading."""
    run, other = (fresh("Adam").train(range(SAVED)) for _ in range(2))
    for p, state in other.opt.state.items():
        for key, value in state.items():
            state[key] = value.to(p.device, copy=True)
    run.train(range(SAVED, END))
    other.train(range(SAVED, END))
    assert bits(other.tensors()) == bits(run.tensors())


# -- torch's own checkpoints -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_checkpoints_of_torchs_own_rule_load_and_go_back(name: str) -> None:
    params = [nn.Parameter(torch.linspace(-1, 1, 6)) for _ in range(3)]
    kinds: list[Any] = [getattr(torch.optim, name), getattr(checkpoint_runs.neon.optimizers, name)]
    torchs = kinds[0]([params[0]], lr=0.1, weight_decay=0.1)
    ours = kinds[1](gradient_clip_value=50.0).attach([params[1]])
    back = kinds[0]([params[2]], lr=0.5)

    def advance(steps: range, *optimizers: Any) -> None:
        for step in steps:
            for opt in optimizers:
                give(nn.ParameterList(opt.param_groups[0]["params"]), step)
                opt.step()

    def hand_over(giver: Any, taker: Any) -> None:
        taker.load_state_dict(copy.deepcopy(giver.state_dict()))
        taker.param_groups[0]["params"][0].data.copy_(giver.param_groups[0]["params"][0].data)
        found, given = taker.state_dict(), giver.state_dict()
        assert bits(found["state"]) == bits(given["state"])
        assert {k: found["param_groups"][0][k] for k in given["param_groups"][0]} == given["param_groups"][0]

    advance(range(2), torchs)
    hand_over(torchs, ours)
    assert ours.param_groups[0]["gradient_clip_value"] == 50.0  # of which torch's has no word
    advance(range(2, 4), torchs, ours)
    hand_over(ours, back)
    advance(range(4, 6), torchs, ours, back)
    torch.testing.assert_close(params[1:], [params[0]] * 2, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("step", [3, 3.0, torch.tensor([3]), torch.tensor(3.0, dtype=torch.float64)], ids=repr)
def test_counts_of_old_checkpoints_and_states_that_are_none(step: Any) -> None:
    opt = stepped(Adam(), w=(2,), v=(2,))
    saved = opt.state_dict()
    saved["state"][0] |= {"step": step, "max_exp_avg_sq": None}
    saved["state"][1] = {"momentum_buffer": None}
    opt.load_state_dict(saved)
    w, v = opt.param_groups[0]["params"]
    assert v not in opt.state
    assert set(opt.state[w]) == {"step", "exp_avg", "exp_avg_sq"}
    assert bits(opt.state[w]["step"]) == bits(torch.tensor(3.0))


def test_hooks_of_torch() -> None:
    opt = stepped(Adam(), w=(2,))
    plain, seen = copy.deepcopy(opt.state_dict()), []

    def renamed(_: Any, state_dict: dict[str, Any]) -> dict[str, Any]:
        seen.append("second")
        [group] = state_dict["param_groups"]
        return {"state": state_dict["state"], "param_groups": [{**group, "param_names": ["w"], "lr": 0.5}]}

    handles: list[Any] = [
        opt.register_load_state_dict_pre_hook(renamed),
        opt.register_load_state_dict_pre_hook(lambda *_: seen.append("first"), prepend=True),
        opt.register_load_state_dict_post_hook(lambda o: seen.append(o.param_groups[0]["lr"])),
    ]
    saved = copy.deepcopy(plain)
    saved["param_groups"][0]["param_names"] = ["old name"]
    opt.load_state_dict(saved)
    assert seen == ["first", "second", 0.5]
    assert saved["param_groups"][0]["param_names"] == ["old name"]
    for handle in handles:
        handle.remove()
    opt.register_state_dict_pre_hook(lambda _: seen.append("before"))
    opt.register_state_dict_post_hook(lambda _, found: {**found, "mine": 1})
    assert opt.state_dict()["mine"] == 1
    assert seen[3:] == ["before"]
    opt.load_state_dict(plain)
    assert opt.param_groups[0]["lr"] == 0.001


# -- torch.distributed.checkpoint ------------------------------------------------------------------

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


@pytest.fixture
def alone() -> Iterator[DeviceMesh]:
    """A mesh of one process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


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
    "clipped, decayed, scheduled": {"param_clip_value": 0.5, "wdecay": 0.1, "schedule": IN_STEPS},
    "rounded": {"stochastic_round": 10, "gradient_clip_norm": 1.0},
}


class Delicate(nn.Module):
    """Values that an update would change, were it by nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Parameter(torch.tensor([-0.0, 0.0, 1 / 3, -3.0]))
        self.low = nn.Parameter(torch.tensor([-0.0, 2.0], dtype=torch.bfloat16))


@pytest.mark.parametrize("option", HARMFUL)
@pytest.mark.parametrize("rule", rules())
def test_the_step_that_makes_states_for_torch_changes_nothing(rule: str, option: str) -> None:
    """torch.distributed.checkpoint takes one with zero gradients and rates, to have states to load into."""
    runs = [Run(model, rules()[rule](**HARMFUL[option]).attach(model)) for model in (Delicate(), Delicate())]
    before = bits([list(runs[0].model.parameters()), runs[0].groups()])
    found = get_optimizer_state_dict(runs[0].model, runs[0].opt)
    assert bits([list(runs[0].model.parameters()), runs[0].groups()]) == before
    assert {name: state["step"].item() for name, state in found["state"].items()} == {"wide": 0, "low": 0}
    for run in runs:
        run.train(range(3))
    assert bits([runs[0].tensors(), runs[0].groups()]) == bits([runs[1].tensors(), runs[1].groups()])


# -- names -----------------------------------------------------------------------------------------

SHAPES: dict[str, tuple[int, ...]] = {"body.weight": (3, 2), "body.bias": (2,), "head.weight": (2, 2)}


@pytest.mark.parametrize("order", [["head.weight", "body.weight", "body.bias"], list(SHAPES)])
@pytest.mark.parametrize("wrapper", ["{}", "module.{}", "_orig_mod.module.{}"])
def test_parameters_are_matched_by_name(order: list[str], wrapper: str) -> None:
    run = stepped(Adam(learning_rate=0.1), **{wrapper.format(name): shape for name, shape in SHAPES.items()})
    saved = copy.deepcopy(run.state_dict())
    other = stepped(Adam(), **{name: SHAPES[name] for name in order})
    for name, p in zip(order, other.param_groups[0]["params"], strict=True):
        place = list(SHAPES).index(name)
        p.data.copy_(run.param_groups[0]["params"][place].data)
        p.grad.copy_(run.param_groups[0]["params"][place].grad)
    other.load_state_dict(saved)
    assert other.param_groups[0]["param_names"] == order
    run.step()
    other.step()
    expected = {name.rpartition("module.")[2]: found for name, found in by_name(run).items()}
    assert by_name(other) == expected


@pytest.mark.parametrize("named", [(True, False), (False, True), (False, False)])
def test_parameters_are_matched_by_place_where_a_side_knows_no_names(named: tuple[bool, bool]) -> None:
    run, other = (stepped(Adam(), named=name, w=(2,), v=(3,)) for name in named)
    other.load_state_dict(run.state_dict())
    states = [[opt.state[p] for p in opt.param_groups[0]["params"]] for opt in (run, other)]
    assert bits(states[0]) == bits(states[1])
    assert ("param_names" in other.param_groups[0]) == any(named)


def test_parameters_without_a_gradient_have_no_state_and_get_none() -> None:
    run = stepped(Adam(), w=(2,), v=(3,))
    saved = copy.deepcopy(run.state_dict())
    del saved["state"][0]
    run.load_state_dict(saved)
    w, v = run.param_groups[0]["params"]
    assert [*run.state] == [v]
    run.step()
    assert (run.state[w]["step"], run.state[v]["step"]) == (1, 2)


@pytest.mark.parametrize("wrapper", ["{}", "module.{}"])
def test_values_of_layers_follow_their_names(wrapper: str) -> None:
    run = stepped(Adam(), **{wrapper.format(name): shape for name, shape in SHAPES.items()})
    run.set("lr", 0.5, layers=wrapper.format("head"))
    run.freeze(wrapper.format("body.bias"))
    other = stepped(Adam(), **{name: SHAPES[name] for name in reversed(SHAPES)})
    other.freeze("body")
    other.load_state_dict(copy.deepcopy(run.state_dict()))
    assert overrides_of(other.param_groups[0]) == {"head.weight": {"lr": 0.5}, "body.bias": {"frozen": True}}
    other.step()
    assert [int(other.state[p]["step"]) for p in other.param_groups[0]["params"]] == [2, 1, 2]
    other.load_state_dict(saved_by(Adam(), **SHAPES))  # which had none
    assert overrides_of(other.param_groups[0]) == {}


def test_a_velocity_that_is_switched_off_is_kept() -> None:
    opt = stepped(GradientDescentMomentum(0.1, 0.9), w=(2,))
    [w] = opt.param_groups[0]["params"]
    opt.param_groups[0]["momentum"] = 0.0
    opt.step()
    other = stepped(GradientDescentMomentum(0.1, 0.9), w=(2,))
    other.load_state_dict(opt.state_dict())
    assert bits([*other.state.values()]) == bits([opt.state[w]])
    opt.param_groups[0]["momentum"] = 0.5
    del opt.state[w]["velocity"]  # as if it had been switched on just now
    other.load_state_dict(opt.state_dict())
    other.step()
    assert other.param_groups[0]["momentum"] == 0.5


# -- what others keep ------------------------------------------------------------------------------


def test_what_others_keep_in_states_is_saved_and_loaded_as_torch_does() -> None:
    """Lookahead's slow weights, a schedule's counts: of the rule's own alone something can be missing."""
    run, other = one(), one()
    w, v = run.param_groups[0]["params"]
    mask = torch.tensor([True, False])
    run.state[w] |= {"slow": w.detach().double(), "codes": mask.byte(), "kept": [mask, ("a", 2)], "nested": {1: mask}}
    del run.state[v]["exp_avg"], run.state[v]["exp_avg_sq"], run.state[v]["step"]
    run.state[v]["slow"] = v.detach().clone()  # before its first step
    kept = {w: 1}
    run.state["mine"] = kept
    run.state["count"] = 5
    other.load_state_dict(run.state_dict())
    p, q = other.param_groups[0]["params"]
    assert bits([other.state[p], other.state[q]]) == bits([run.state[w], run.state[v]])
    assert other.state[p]["slow"] is not run.state[w]["slow"]
    assert type(other.state[p]["kept"][1]) is tuple
    assert other.state["mine"] is kept
    assert other.state["count"] == 5
    assert "mine" in repr(dict(other.state))
    assert "default" in repr(other) or "adam" in repr(other)
    for each in (run, other):
        each.step()
    assert bits([other.state[p], other.state[q]]) == bits([run.state[w], run.state[v]])
    assert (other.state[p]["step"], other.state[q]["step"]) == (2, 1)


def test_a_missing_state_of_the_rule_is_refused_beside_what_others_keep() -> None:
    run = one()
    w = run.param_groups[0]["params"][0]
    run.state[w]["slow"] = w.detach().clone()
    saved = run.state_dict()
    del saved["state"][0]["exp_avg"]
    with pytest.raises(ValueError, match="w: has no exp_avg in the checkpoint, only step, exp_avg_sq, slow"):
        run.load_state_dict(saved)


def test_a_state_whose_parameter_is_in_no_group_is_refused_in_words() -> None:
    opt = one()
    old = opt.param_groups[0]["params"][0]
    opt.param_groups[0]["params"][0] = nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=r"a tensor of shape \(2,\) that is in none of its groups\. Was a parameter"):
        opt.state_dict()
    del opt.state[old]
    assert [*opt.state_dict()["state"]] == [1]


@pytest.mark.parametrize("make", [AdamW(), neon.torch.AdamW], ids=["attached", "drop-in"])
def test_an_empty_group_is_saved_and_loaded(make: Any) -> None:
    """Trainer makes one of a model without norms and biases, accelerate loads what it has just saved."""
    w = nn.Parameter(torch.ones(2))
    groups = [{"params": [w], "weight_decay": 0.1}, {"params": [], "weight_decay": 0.0}]
    opt = make.attach(groups) if isinstance(make, Optimizer) else make(groups)
    for _ in range(2):
        opt.load_state_dict(opt.state_dict())
        assert [group["weight_decay"] for group in opt.param_groups] == [0.1, 0.0]
        w.grad = torch.ones(2)
        opt.step()
    smaller = opt.state_dict()
    smaller["param_groups"][1]["params"] = [1]
    with pytest.raises(ValueError, match=r"group 1 .*, parameters: 1 in the checkpoint, 0 here"):
        opt.load_state_dict(smaller)


def test_a_rate_that_groups_share_is_one_tensor_after_loading_as_in_torch() -> None:
    for make in (torch.optim.Adam, neon.torch.Adam):
        groups = [{"params": [nn.Parameter(torch.ones(2))]} for _ in range(2)]
        opt = make(groups, lr=torch.tensor(0.5))
        opt.load_state_dict(opt.state_dict())
        opt.param_groups[0]["lr"].fill_(0.25)
        assert [float(group["lr"]) for group in opt.param_groups] == [0.25, 0.25]


def test_defaults_of_torch_reach_nothing_that_is_loaded() -> None:
    run, other = stepped(Adam(weight_average=0.9), w=(2,)), stepped(Adam(weight_average=0.9), w=(2,))
    saved = run.state_dict()
    saved["state"][0]["step"] = 1
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.bfloat16)
    try:
        other.load_state_dict(saved)
        copied = copy.deepcopy(other)
    finally:
        torch.set_default_device("cpu")
        torch.set_default_dtype(torch.float32)
    for opt in (other, copied):
        [state] = opt.state.values()
        assert {(tensor.device.type, tensor.dtype) for tensor in state.values()} == {("cpu", torch.float32)}


@pytest.mark.parametrize("here", [None, "float32", "bfloat16"], ids=str)
@pytest.mark.parametrize("saved", ["float32", "bfloat16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_states_of_either_size_load_as_they_are(dtype: torch.dtype, saved: str, here: str | None) -> None:
    """Whatever format the optimizer was made with; torch's checkpoint of 16-bit parameters has 16-bit states."""

    def run(form: str | None) -> tuple[nn.Parameter, AttachedOptimizer]:
        w = nn.Parameter(torch.linspace(-1, 1, 8192).to(dtype))
        return w, neon.torch.AdamW([w], lr=0.1, state_dtype=form)

    (w, one), (p, other) = run(saved), run(here)
    torchs = torch.optim.AdamW([nn.Parameter(w.detach().clone())], lr=0.1)
    for step in range(2):
        for param in (w, torchs.param_groups[0]["params"][0]):
            param.grad = torch.linspace(0.5, 1 + step, 8192).to(dtype)
        one.step()
        torchs.step()
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    p.data.copy_(w.data)
    assert bits([*other.state.values()]) == bits([*one.state.values()])
    assert other.state[p]["exp_avg"].dtype == getattr(torch, saved)
    for param, opt in ((w, one), (p, other)):
        param.grad = torch.ones(8192, dtype=dtype)
        opt.step()
    assert bits([p, *other.state.values()]) == bits([w, *one.state.values()])
    other.load_state_dict(torchs.state_dict())
    assert {other.state[p][name].dtype for name in ("exp_avg", "exp_avg_sq")} == {dtype}
    p.grad = torch.ones(8192, dtype=dtype)
    other.step()


# -- what is refused -------------------------------------------------------------------------------

# Rules whose first checkpoint, without states, could be taken for another's.
FIRST = ["SGD", "Adam", "RMSprop", "Adagrad", "Adadelta", "Lion"]


@pytest.mark.parametrize("there", FIRST)
@pytest.mark.parametrize("here", FIRST)
def test_a_checkpoint_without_states_is_known_by_its_groups(here: str, there: str) -> None:
    def made(name: str) -> AttachedOptimizer:
        return getattr(neon.torch, name)([nn.Parameter(torch.ones(2))], lr=0.5)

    opt = made(here)
    if here == there:
        opt.load_state_dict(made(there).state_dict())
        return
    with pytest.raises(ValueError, match=r"has no \w+.* in the checkpoint|which \w+ does not have"):
        opt.load_state_dict(made(there).state_dict())


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta"])
def test_what_torch_and_earlier_versions_have_no_word_of_stays_as_it_is(name: str) -> None:
    """Options that came later than a checkpoint: those of neon's, and those that torch's classes were given in time."""
    opt = drop_in(name, gradient_clip_norm=1.0, weight_average=0.5, maximize=True)
    saved = getattr(torch.optim, name)([nn.Parameter(torch.ones(2))], lr=0.25).state_dict()
    for key in ("maximize", "foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"):
        saved["param_groups"][0].pop(key, None)
    saved["param_groups"][0]["params"] = [0, 1]
    opt.load_state_dict(saved)
    [group] = opt.param_groups
    kept = (group["lr"], group["gradient_clip_norm"], group["weight_average"], group["maximize"])
    assert kept == (0.25, 1.0, 0.5, True)


def test_messages_about_groups_are_short() -> None:
    long = "x" * 5000
    param = nn.Parameter(torch.ones(2))
    mapping = MultiOptimizer({"default": Adam(), long: Adam()}, gradient_clip_norm=1.0)
    group = {"params": [("w", param)], "optimizer": long}
    opt = mapping.attach([group])
    opt.param_groups[0]["outer_clip_norms"] = ()
    with pytest.raises(ValueError, match="outer_clip_norms must have 1 bounds") as refused:
        opt.settings(opt.param_groups[0])
    assert len(str(refused.value)) < 500
    opt.param_groups[0]["overrides"] = long
    with pytest.raises(ValueError, match="must be a JSON object") as refused:
        opt.step()
    assert len(str(refused.value)) < 500
    with pytest.raises(ValueError, match=r"has no 'state' and no 'param_groups'") as refused:
        opt.load_state_dict({f"{long}{i}": {} for i in range(50)} | {long: {"state": {}, "param_groups": []}})
    assert len(str(refused.value)) < 500


def saved_by(optimizer: Optimizer, *, named: bool = True, **shapes: tuple[int, ...]) -> dict[str, Any]:
    return stepped(optimizer, named=named, **shapes).state_dict()


def torchs(kind: str, **options: Any) -> dict[str, Any]:
    """A checkpoint of torch's class; `...` takes a value out of its group."""
    params = parameters({"w": (2,), "v": (3,)}).values()
    opt = getattr(torch.optim, kind)(params, lr=0.1, **{k: v for k, v in options.items() if v is not ...})
    opt.step()
    saved = opt.state_dict()
    for key in [key for key, value in options.items() if value is ...]:
        del saved["param_groups"][0][key]
    return saved


def drop_in(kind: str, **options: Any) -> AttachedOptimizer:
    opt = getattr(neon.torch, kind)(parameters({"w": (2,), "v": (3,)}).values(), lr=0.1, **options)
    opt.step()
    return opt


def grouped(*places: int) -> dict[str, Any]:
    """A checkpoint of one group for each parameter, in this order."""
    made = [*parameters({"w": (2,), "v": (3,)}).items()]
    opt = Adam().attach([{"params": [made[place]]} for place in places])
    opt.step()
    return opt.state_dict()


def mapped(first: str, second: str, norm: float | None = None) -> dict[str, Any]:
    mapping = MultiOptimizer({"default": Adam(), "v": Adam()}, gradient_clip_norm=norm)
    made = parameters({"w": (2,), "v": (3,)})
    opt = mapping.attach(
        [{"params": [("w", made["w"])], "optimizer": first}, {"params": [("v", made["v"])], "optimizer": second}]
    )
    opt.step()
    return opt.state_dict()


def changed(part: str, place: int, **values: Any) -> Callable[[], dict[str, Any]]:
    """A checkpoint of Adam's in which a group's or a parameter's values are others; `...` takes one out."""

    def make() -> dict[str, Any]:
        saved = saved_by(Adam(), w=(2,), v=(3,))
        merged = {**saved[part][place], **values}
        saved[part][place] = {k: v for k, v in merged.items() if v is not ...}
        return saved

    return make


def one() -> AttachedOptimizer:
    return stepped(Adam(), w=(2,), v=(3,))


def two() -> AttachedOptimizer:
    made = [*parameters({"w": (2,), "v": (3,)}).items()]
    return Adam().attach([{"params": [item]} for item in made])


def two_of_a_mapping() -> AttachedOptimizer:
    mapping = MultiOptimizer({"default": Adam(), "v": Adam()})
    return mapping.attach(list(parameters({"w": (2,), "v": (3,)}).items()))


def in_backward() -> AttachedOptimizer:
    made = parameters({"w": (2,), "v": (3,)})
    return Adam().attach(list(made.items()), in_backward=True, gradient_clip_previous_norm=1.0)


def with_values(layers: str, **values: Any) -> dict[str, Any]:
    """A checkpoint in which a layer has values of its own."""
    saved = saved_by(Adam(), w=(2,), v=(3,))
    saved["param_groups"][0]["overrides"] = as_text({layers: values})
    return saved


Refusal = tuple[Callable[[], Any], Callable[[], AttachedOptimizer], str]
REFUSED: dict[str, Refusal] = {
    "fewer groups": (
        lambda: saved_by(Adam(), w=(2,), v=(3,)),
        two,
        r"parameter groups: 1 in the checkpoint \('default' of 2\), 2 here \('default' of 1, 'default' of 1\)",
    ),
    "more groups": (lambda: grouped(0, 1), one, "parameter groups: 2 in the checkpoint .*, 1 here"),
    "a smaller group": (
        lambda: saved_by(Adam(), named=False, w=(2,)),
        one,
        r"group 0 \('default'\), parameters: 1 in the checkpoint, 2 here",
    ),
    "groups in another order": (lambda: grouped(1, 0), two, r"group 0 here \('default'\) is group 1 in the checkpoint"),
    "another key": (
        lambda: mapped("v", "default"),
        two_of_a_mapping,
        "group 0 belongs to 'v' in the checkpoint, to 'default' here",
    ),
    "names": (
        lambda: saved_by(Adam(), w=(2,), **{f"layers.{i}.w": (3,) for i in range(5)}),
        lambda: stepped(Adam(), w=(2,), v=(3,), **{"layer.0.w": (3,)}),
        r"\('default'\), only in the checkpoint: 'layers.0.w' \(near 'layer.0.w'\), .* and 2 more\n.* here: 'v',",
    ),
    "shapes": (
        lambda: saved_by(Adam(), v=(3, 3), w=(2,)),
        one,
        r"  v: exp_avg has shape \(3, 3\) in the checkpoint; the parameter has shape \(3,\)\nLoad",
    ),
    "another rule": (
        lambda: saved_by(GradientDescentMomentum(0.1, 0.9), w=(2,), v=(3,)),
        one,
        "w: has no exp_avg and no exp_avg_sq in the checkpoint, only step, velocity",
    ),
    "another rule of torch's": (lambda: torchs("SGD", momentum=0.9), one, "momentum=0.9, which adam does not have"),
    "amsgrad": (lambda: torchs("Adam", amsgrad=True), one, "saved with amsgrad=True, which adam does not have"),
    "decay apart": (
        lambda: torchs("AdamW", weight_decay=0.1),
        one,
        "its weight decay went apart from the averages; that of adam goes through them",
    ),
    "decay through": (
        lambda: torchs("Adam", weight_decay=0.1),
        lambda: stepped(AdamW(), w=(2,), v=(3,)),
        "its weight decay went through the averages; that of adamw goes apart from them",
    ),
    "a rate": (changed("param_groups", 0, lr=-1.0), one, r"group 0 \('default'\): lr must be a finite .* lr=-1.0"),
    "betas": (
        changed("param_groups", 0, betas=(0.9, float("nan"))),
        one,
        r"betas\[1\] must be .*Received: betas\[1\]=nan",
    ),
    "an option": (changed("param_groups", 0, stochastic_round="yes"), one, "stochastic_round must be"),
    "no average": (
        changed("state", 1, exp_avg_sq=...),
        one,
        "v: has no exp_avg_sq in the checkpoint, only step, exp_avg",
    ),
    "no count": (changed("state", 0, step=...), one, "w: has no step in the checkpoint, only exp_avg, exp_avg_sq"),
    "a count alone": (
        changed("state", 0, exp_avg=..., exp_avg_sq=...),
        one,
        "w: has no exp_avg and no exp_avg_sq in the checkpoint, only step",
    ),
    "a negative count": (changed("state", 0, step=-1), one, "w: step is -1 in the checkpoint; it must be a number"),
    "many counts": (changed("state", 0, step=torch.zeros(2)), one, "w: step is tensor"),
    "integers": (
        changed("state", 0, exp_avg=torch.zeros(2, dtype=torch.int64)),
        one,
        "w: exp_avg has dtype torch.int64",
    ),
    "a number": (changed("state", 0, exp_avg=0.5), one, "w: exp_avg is 0.5 in the checkpoint; it must be a tensor"),
    "an average of one number": (changed("state", 0, exp_avg=torch.tensor(0.5)), one, r"w: exp_avg has shape \(\)"),
    "a group without values": (
        lambda: {"state": {}, "param_groups": [{"params": [0, 1]}]},
        one,
        r"group 0 \('default'\): has no lr, betas, eps in the checkpoint",
    ),
    "a group without a rate": (changed("param_groups", 0, lr=...), one, "has no lr in the checkpoint"),
    "a group without a flag that is set here": (
        lambda: torchs("Adam", amsgrad=...),
        lambda: drop_in("Adam", amsgrad=True),
        "has no amsgrad in the checkpoint",
    ),
    "very many groups": (
        lambda: {"state": {}, "param_groups": [{"params": [place]} for place in range(468)]},
        two,
        r"parameter groups: 468 in the checkpoint \('unnamed' of 1, .* of 1 and 465 more\), 2 here",
    ),
    "very long names": (
        lambda: saved_by(Adam(), **{f"{'x' * 5000}{i}": (2,) for i in range(2)}),
        one,
        r"only in the checkpoint: 'x{10,}.*\n.*only here: 'w', 'v'",
    ),
    "a very long value": (
        changed("state", 0, step="1" * 5000),
        one,
        r"w: step is '1{10,}\.\.\.1+.*must be a number of steps",
    ),
    "a norm more": (
        lambda: mapped("default", "v", 1.0),
        two_of_a_mapping,
        r"group 1 \('v'\), norms over several optimizers: 1 in the checkpoint, 0 here",
    ),
    "a norm that comes too late": (
        lambda: saved_by(Adam(gradient_clip_norm=1.0), w=(2,), v=(3,)),
        in_backward,
        r"group 0 \('default'\): gradient_clip_norm cannot be had with in_backward=True",
    ),
    "the norm of the step before": (
        lambda: in_backward().state_dict(),
        one,
        r"group 0 \('default'\): gradient_clip_previous_norm is for in_backward=True",
    ),
    "values of a layer that is not here": (
        lambda: with_values("vv", lr=0.5),
        one,
        r"group 0 \('default'\): values are set for layers that are not here: 'vv' \(near 'v'\)",
    ),
    "a layer's value": (lambda: with_values("v", lr=-1.0), one, "lr must be a finite .* lr=-1.0"),
    "a state of nobody's": (
        lambda: {**saved_by(Adam(), w=(2,), v=(3,)), "state": {7: {"step": 1}}},
        one,
        "parameter 7 of the checkpoint has a state, but is in none of its groups",
    ),
    "all of a checkpoint": (
        lambda: {"model": {}, "optimizer": saved_by(Adam(), w=(2,))},
        one,
        r"has no 'state' and no 'param_groups': .* keys: 'model', 'optimizer'\. Load its part 'optimizer'\.",
    ),
    "no groups": (lambda: {"state": {}}, one, "has no 'param_groups': it is not what"),
    "no dict": (list, one, r"what state_dict\(\) gave, a dict\. Received: list\."),
    "very much": (
        lambda: saved_by(Adam(), **{f"p{i}": (3,) for i in range(40)}),
        lambda: stepped(Adam(), **{f"p{i}": (2,) for i in range(40)}),
        r"Nothing of it was loaded\.\n(  p\d+: exp_avg has .*\n){3}  \.\.\. and 37 more\nLoad it into",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_whole(case: str) -> None:
    make, here, message = REFUSED[case]
    opt = here()
    twin = copy.deepcopy(opt)
    before = bits(opt.state_dict())
    with pytest.raises(TypeError if case == "no dict" else ValueError, match=message) as refused:
        opt.load_state_dict(make())
    assert len(str(refused.value)) < 500
    assert bits(opt.state_dict()) == before
    ends = []
    for each in (opt, twin):
        params = [p for group in each.param_groups for p in group["params"]]
        give(nn.ParameterList(params), 3)
        each.step()
        ends.append(bits([params, each.state_dict()]))
    assert ends[0] == ends[1]
