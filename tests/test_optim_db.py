"""The drop-in classes over torch's own database of optimizers: every configuration that its tests are run with.

Each configuration trains one small model by torch's class and another by ours of the same name, each by its
own gradients, so that a difference at one step would grow.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from constructors import DROP_INS
from other_versions import skip_added_group
from torch import nn
from torch_database import DATABASE, distance, through_a_file

import neon.torch

pytestmark = pytest.mark.usefixtures("one_thread", "exact_numbers")

STEPS = 12  # StepLR of the database moves after 10
# The largest difference of a tensor relative to its largest entry; seen over all tests: 7.9e-7 and 9.4e-16.
BOUNDS = {torch.float32: 2e-6, torch.float64: 2e-15}
# Muon takes matrices alone, and torch's iterates in bfloat16: test_muon.py
INFOS = {name: info for name, info in DATABASE.items() if name in DROP_INS and name != "Muon"}
UNSERVED = ("capturable", "differentiable")


def configurations() -> dict[str, tuple[str, dict[str, Any]]]:
    """Every configuration for the CPU, alone and with each of torch's implementations."""
    found = {}
    for name, info in INFOS.items():
        for given in info.optim_inputs_func("cpu"):
            for implementation in ("", *info.supported_impls):
                chosen = {implementation: True} if implementation else {}
                label = " & ".join(filter(None, (f"{name}: {given.desc}", implementation)))
                found[label] = (name, {**given.kwargs, **chosen})
        for given in info.optim_inputs_func("cuda"):
            if given.kwargs.get("capturable"):
                found[f"{name}: {given.desc}"] = (name, given.kwargs)
    return found


ALL = configurations()
REFUSED = {label for label, (_, kwargs) in ALL.items() if any(kwargs.get(flag) for flag in UNSERVED)}
SERVED = [label for label in ALL if label not in REFUSED]
# Those that differ in more than torch's choice among its implementations.
PLAIN = [label for label in SERVED if " & " not in label]


def make(library: Any, label: str, params: Any, **changed: Any) -> Any:
    name, kwargs = ALL[label]
    return getattr(library, name)(params, **{**copy.deepcopy(kwargs), **changed})  # schedulers write into a tensor lr


def model(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(5)
    first, last = (nn.Linear(*shape, dtype=torch.float32) for shape in ((4, 6), (6, 2)))
    return nn.Sequential(first, nn.Tanh(), last).to(dtype)


def train(net: nn.Module, opt: Any, steps: range, schedulers: Any = ()) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 4, generator=generator, dtype=torch.float64).to(next(net.parameters()).dtype)
        opt.zero_grad()
        loss = nn.functional.mse_loss(net(x), torch.stack([x[:, 0] * x[:, 1], x.sum(1)], 1))
        loss.backward()
        opt.step()
        for scheduler in schedulers:
            scheduler.step(
                *([loss.detach()] if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) else [])
            )


def assert_close(ours: nn.Module, mine: Any, theirs: nn.Module, other: Any) -> None:
    """The same parameters, the same states by the same names, within what rounding costs."""
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert distance(p, q) <= BOUNDS[q.dtype]
        state, expected = dict(mine.state[p]), dict(other.state[q])
        if isinstance(other, torch.optim.SGD):  # it counts nothing, and carries along what it has loaded
            state.pop("step", None), expected.pop("step", None)
        assert set(state) == set(expected)
        for name, value in expected.items():
            assert distance(state[name], value) <= BOUNDS[q.dtype], name


def bits(net: nn.Module, opt: Any) -> list[Any]:
    return [[p.tolist(), {k: v.tolist() for k, v in opt.state[p].items()}] for p in net.parameters()]


def values(opt: Any) -> list[dict[str, Any]]:
    return [{key: value for key, value in group.items() if key != "params"} for group in opt.param_groups]


def test_every_class_of_torch_is_here() -> None:
    """Those that make no step over dense gradients alone are torch's own."""
    own = {name for name in DATABASE if getattr(neon.torch, name, None) is getattr(torch.optim, name)}
    assert own == {"LBFGS", "SparseAdam"}
    assert {*DATABASE} == {*INFOS, *own, "Muon"} & {*DATABASE}
    assert "Muon" in DROP_INS
    assert {*INFOS} >= {"ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "NAdam", "RAdam"}


# -- the same steps --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("label", SERVED)
def test_the_steps_are_torchs(label: str, dtype: torch.dtype) -> None:
    ours, theirs = model(dtype), model(dtype)
    mine, other = make(neon.torch, label, ours.parameters()), make(torch.optim, label, theirs.parameters())
    for group, expected in ((mine.param_groups[0], values(other)[0]), (mine.defaults, other.defaults)):
        assert {key: group[key] for key in expected} == expected
    train(ours, mine, range(STEPS))
    train(theirs, other, range(STEPS))
    assert_close(ours, mine, theirs, other)
    assert distance(theirs[0].weight, model(dtype)[0].weight) > 1e-5  # the steps went somewhere


@pytest.mark.parametrize("label", PLAIN)
def test_every_scheduler_of_the_database(label: str) -> None:
    for makers in INFOS[ALL[label][0]].scheduler_inputs:
        ours, theirs = model(), model()
        mine, other = make(neon.torch, label, ours.parameters()), make(torch.optim, label, theirs.parameters())
        train(ours, mine, range(STEPS), [maker(mine) for maker in makers])
        train(theirs, other, range(STEPS), [maker(other) for maker in makers])
        assert float(mine.param_groups[0]["lr"]) == float(other.param_groups[0]["lr"])
        assert_close(ours, mine, theirs, other)


def groups(net: Any, label: str) -> list[dict[str, Any]]:
    decays = not label.startswith("Rprop")  # torch's takes no decay, and says nothing of one in a group
    return [
        {"params": [net[0].weight], "lr": 0.02},
        {"params": [net[0].bias, net[2].weight], **({"weight_decay": 0.3} if decays else {})},
        {"params": net[2].bias},
    ]


@pytest.mark.parametrize("label", PLAIN)
def test_groups_and_one_that_is_added(label: str) -> None:
    skip_added_group(label.split(":")[0])
    ours, theirs = model(), model()
    mine, other = make(neon.torch, label, groups(ours, label)[:2]), make(torch.optim, label, groups(theirs, label)[:2])
    train(ours, mine, range(3))
    train(theirs, other, range(3))
    mine.add_param_group({**groups(ours, label)[2], "lr": 0.05})
    other.add_param_group({**groups(theirs, label)[2], "lr": 0.05})
    train(ours, mine, range(3, 6))
    train(theirs, other, range(3, 6))
    assert_close(ours, mine, theirs, other)
    assert [g["lr"] for g in mine.param_groups] == [g["lr"] for g in other.param_groups]


@pytest.mark.parametrize("name", INFOS)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_rate_in_a_tensor(name: str, shape: tuple[int, ...]) -> None:
    ours, theirs = model(), model()
    rate = torch.full(shape, 0.0625)
    mine = getattr(neon.torch, name)(ours.parameters(), lr=rate)
    other = getattr(neon.torch, name)(theirs.parameters(), lr=0.0625)
    assert mine.param_groups[0]["lr"] is rate
    train(ours, mine, range(2))
    train(theirs, other, range(2))
    rate.mul_(2)
    other.param_groups[0]["lr"] = 0.125
    train(ours, mine, range(2, 4))
    train(theirs, other, range(2, 4))
    assert bits(ours, mine) == bits(theirs, other)


# -- steps that do nothing -------------------------------------------------------------------------


@pytest.mark.parametrize("label", PLAIN)
def test_without_gradients_nothing_moves(label: str) -> None:
    net = model()
    opt = make(neon.torch, label, net.parameters())
    before = bits(net, opt)
    opt.step()
    assert bits(net, opt) == before
    net[0].weight.grad = torch.ones_like(net[0].weight)
    opt.step()
    assert [p for p in net.parameters() if opt.state.get(p)] == [net[0].weight]


@pytest.mark.parametrize("label", PLAIN)
def test_zero_gradients_move_what_torch_moves(label: str) -> None:
    ours, theirs = model(), model()
    mine, other = make(neon.torch, label, ours.parameters()), make(torch.optim, label, theirs.parameters())
    for net, opt in ((ours, mine), (theirs, other)):
        for p in net.parameters():
            p.grad = torch.zeros_like(p)
        opt.step()
        opt.step()
    assert_close(ours, mine, theirs, other)
    if not ALL[label][1].get("weight_decay", mine.defaults["weight_decay"]) and "lambd" not in mine.defaults:
        assert [p.tolist() for p in ours.parameters()] == [p.tolist() for p in model().parameters()]


# -- going on elsewhere ----------------------------------------------------------------------------


def loaded(net: nn.Module, opt: Any, label: str, change: Callable[[Any], Any] = lambda state: state) -> tuple[Any, Any]:
    again = model()
    again.load_state_dict(net.state_dict())
    resumed = make(neon.torch, label, again.parameters(), lr=0.5)
    resumed.load_state_dict(change(opt.state_dict()))
    return again, resumed


def counted_by_numbers(state_dict: Any) -> Any:
    """As torch saved it before 1.12."""
    for state in state_dict["state"].values():
        state["step"] = state["step"].item()
    return state_dict


WAYS: dict[str, Callable[[Any, Any, str], tuple[Any, Any]]] = {
    "state dict": loaded,
    "file": lambda net, opt, label: loaded(net, opt, label, through_a_file),
    "counts that are numbers": lambda net, opt, label: loaded(net, opt, label, counted_by_numbers),
    "deepcopy": lambda net, opt, label: copy.deepcopy((net, opt)),
    "pickle": lambda net, opt, label: pickle.loads(pickle.dumps((net, opt))),
}


@pytest.mark.parametrize("label", PLAIN)
def test_a_run_that_goes_on_elsewhere_ends_with_the_same_bits(label: str) -> None:
    net = model()
    opt = make(neon.torch, label, net.parameters())
    train(net, opt, range(3))
    others = {way: WAYS[way](net, opt, label) for way in WAYS}
    train(net, opt, range(3, 6))
    for way, (again, resumed) in others.items():
        train(again, resumed, range(3, 6))
        assert bits(again, resumed) == bits(net, opt), way
        assert values(resumed) == values(opt), way


@pytest.mark.parametrize("old", [False, True], ids=["today's", "older"])
@pytest.mark.parametrize("label", PLAIN)
def test_from_torch_to_neon_and_back(label: str, old: bool) -> None:
    """With `old`, the first checkpoint has no word of the options that torch's class did not have at first."""
    theirs, ours, back = model(), model(), model()
    other = make(torch.optim, label, theirs.parameters())
    train(theirs, other, range(4))
    saved = through_a_file(other.state_dict())
    for group in saved["param_groups"] if old else ():
        for flag in INFOS[ALL[label][0]].not_og_supported_flags:
            group.pop(flag, None)
    mine = make(neon.torch, label, ours.parameters(), **({} if old else {"lr": 0.5}))
    ours.load_state_dict(theirs.state_dict())
    mine.load_state_dict(saved)
    train(ours, mine, range(4, 8))
    train(theirs, other, range(4, 8))
    assert_close(ours, mine, theirs, other)
    again = make(torch.optim, label, back.parameters(), lr=0.5)
    back.load_state_dict(ours.state_dict())
    again.load_state_dict(through_a_file(mine.state_dict()))
    train(back, again, range(8, 12))
    train(ours, mine, range(8, 12))
    train(theirs, other, range(8, 12))
    assert_close(ours, mine, back, again)
    assert_close(ours, mine, theirs, other)


# -- the rest of what torch's tests ask ------------------------------------------------------------


@pytest.mark.parametrize("label", PLAIN)
def test_it_is_printed_and_its_hooks_are_called(label: str) -> None:
    net = model()
    opt = make(neon.torch, label, net.parameters())
    seen: list[str] = []
    opt.register_step_pre_hook(lambda *_: seen.append("before"))
    opt.register_step_post_hook(lambda *_: seen.append("after"))
    opt.register_state_dict_post_hook(lambda *_: seen.append("saved"))
    opt.register_load_state_dict_post_hook(lambda *_: seen.append("loaded"))
    train(net, opt, range(1))
    opt.load_state_dict(opt.state_dict())
    assert seen == ["before", "after", "saved", "loaded"]
    assert repr(float(opt.param_groups[0]["lr"])) in repr(opt)


def errors() -> list[Any]:
    return [
        pytest.param(name, error, id=f"{name}: {error.optimizer_error_input.desc}")
        for name, info in INFOS.items()
        for error in info.optim_error_inputs_func("cpu", torch.float32)
        if error.error_on.name == "CONSTRUCTION_ERROR"
    ]


@pytest.mark.parametrize(("name", "error"), errors())
def test_what_torch_refuses_is_refused_with_the_same_type(name: str, error: Any) -> None:
    given = error.optimizer_error_input
    for library in (torch.optim, neon.torch):
        params = [nn.Parameter(torch.randn(1))] if given.params is None else copy.copy(given.params)
        with pytest.raises(error.error_type):
            getattr(library, name)(params, **given.kwargs)


@pytest.mark.parametrize("label", sorted(REFUSED))
def test_what_is_not_served_is_refused_by_name(label: str) -> None:
    [flag] = [flag for flag in UNSERVED if ALL[label][1].get(flag)]
    with pytest.raises(ValueError, match=f"^{flag}=True asks for .* Leave it out"):
        make(neon.torch, label, model().parameters())
