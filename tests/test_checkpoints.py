"""Checkpoints of attached optimizers: resumed runs, torch's own, matching by name, and what others keep in states."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import checkpoint_runs
import pytest
import torch
from checkpoint_runs import END, RUNS, SAVED, Run, fresh, give
from stepped_parameters import bits, by_name, one, saved_by, stepped
from torch import nn

import neon.torch
from neon.optimizers import (
    Adam,
    AdamW,
    GradientDescentMomentum,
    Optimizer,
)
from neon.stepping.overrides import overrides_of
from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")


# -- going on --------------------------------------------------------------------------------------


def test_a_new_process_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    """Every run, in one process: where it ended, and where it ends from the middle on."""
    ends = {}
    for number, name in enumerate(RUNS):
        run = fresh(name).train(range(SAVED))
        run.save(tmp_path / f"{number}.pt")
        run.train(range(SAVED, END))
        ends[name] = bits([run.tensors(), run.groups()])
    script = Path(checkpoint_runs.__file__)
    subprocess.run([sys.executable, "-W", "error", str(script), str(tmp_path)], check=True, timeout=600)
    found = {name: bits(torch.load(tmp_path / f"{number} resumed.pt")) for number, name in enumerate(RUNS)}
    assert [name for name in RUNS if found[name] != ends[name]] == []


def through_state_dict(run: Run, name: str) -> Run:
    """Loaded in mid-run: what an optimizer had before must not matter."""
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


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("make", [GradientDescentMomentum(0.1, 0.9).attach, neon.torch.SGD], ids=["attached", "SGD"])
def test_what_others_keep_is_loaded_before_there_is_momentum(make: Any, counted: bool) -> None:
    run, other = (make([nn.Parameter(torch.ones(2))]) for _ in range(2))
    [w], [p] = (opt.param_groups[0]["params"] for opt in (run, other))
    run.state[w] = {"slow": w.detach().clone()} | ({"step": torch.tensor(1.0)} if counted else {})
    for opt in (run, other):
        opt.param_groups[0]["momentum"] = 0.9  # switched on just now
    other.load_state_dict(run.state_dict())
    assert bits(other.state[p]) == bits(run.state[w])
    p.grad = torch.ones(2)
    other.step()
    assert {"slow", "step"} < other.state[p].keys()


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
