"""The class and its groups: what trainers and torch itself do to an optimizer, done to every exported one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from constructors import OPTIMIZERS, RULES, described, shaped
from exported_optimizers import (
    assert_same,
    attached,
    every,
    every_rule,
    every_rule_apart,
    everything,
    give,
    parameters,
    train,
)
from pairs import crossed
from torch import nn

from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")


# -- class and groups ------------------------------------------------------------------------------


@every
def test_every_group_has_what_defaults_and_schedulers_need(name: str) -> None:
    _, optimizer = attached(name)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(optimizer, AttachedOptimizer)
    for values in (optimizer.defaults, *optimizer.param_groups):
        assert isinstance(values["lr"], float)
        assert isinstance(values["weight_decay"], float)
        assert not {"beta_1", "beta_2", "learning_rate"} & set(values)
        assert "betas" not in values or not {"beta1", "beta2"} & set(values)
    assert all(set(group) >= set(optimizer.defaults) for group in optimizer.param_groups)
    assert optimizer.step.hooked  # torch wraps what is not marked, and hooks would run twice


@every
def test_groups_compare_by_value_to_a_plain_bool(name: str) -> None:
    """As torch does when it gathers optimizer states over processes: `if value != other`."""
    (_, one), (_, other) = attached(name), attached(name)
    train([], one, range(1))
    for mine, theirs in zip(one.state_dict()["param_groups"], other.state_dict()["param_groups"], strict=True):
        assert type(mine) is dict
        for key in mine:
            assert type(mine[key] != theirs[key]) is bool
            assert mine[key] == theirs[key] or key == "updates"


@every
def test_it_prints_and_its_state_is_torchs_kind_of_dict(name: str) -> None:
    params, optimizer = attached(name)
    assert optimizer.state[params[0]] == {}
    train(params, optimizer, range(1))
    assert set(optimizer.state) == set(params)
    assert all(
        isinstance(value, (torch.Tensor, float)) for state in optimizer.state.values() for value in state.values()
    )
    assert "Parameter" in repr(optimizer)


# -- copies ----------------------------------------------------------------------------------------


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": lambda pair: (pair[0], copy.copy(pair[1])),
    "deepcopy": copy.deepcopy,
    "pickle": lambda pair: pickle.loads(pickle.dumps(pair)),
}
# torch's own bookkeeping, which its own optimizers lose as well
TORCHS = {"_warned_capturable_if_run_uncaptured", "_opt_called"}


@pytest.mark.parametrize("way", COPIES)
@every
def test_a_copy_has_every_attribute_and_goes_on(name: str, way: str) -> None:
    (params, optimizer), (others, plain) = attached(name), attached(name)
    for one in (params, optimizer), (others, plain):
        train(*one, range(2))
        one[1].set_epoch(1)
    params, copied = COPIES[way]((params, optimizer))
    assert set(vars(optimizer)) - set(vars(copied)) <= TORCHS
    assert repr(copied) == repr(optimizer)
    assert [set(group) for group in copied.param_groups] == [set(group) for group in optimizer.param_groups]
    train(params, copied, range(2, 5))
    train(others, plain, range(2, 5))
    assert_same(everything(copied), everything(plain))


# -- parameters and groups that come and go ---------------------------------------------------------


def in_the_list(group: Any, new: list[Any]) -> None:
    for place, p in enumerate(new):
        group["params"][place] = p


def as_a_new_list(group: Any, new: list[Any]) -> None:
    group["params"] = new


@pytest.mark.parametrize(
    ("name", "replace", "moved"), crossed(product(OPTIMIZERS, [in_the_list, as_a_new_list], [False, True]))
)
def test_parameters_that_are_replaced_are_trained(name: str, replace: Any, moved: bool) -> None:
    """As FSDP2 and ZeRO do. With the states moved, the run is the undisturbed one, else that of a new optimizer."""
    (params, optimizer), (others, plain) = attached(name), attached(name)
    train(params, optimizer, range(2))
    train(others, plain, range(2))
    new = []
    for group in optimizer.param_groups:
        fresh = [nn.Parameter(p.detach().clone()) for p in group["params"]]
        for old, p in zip(group["params"], fresh, strict=True):
            state = optimizer.state.pop(old)
            if moved:
                optimizer.state[p] = state
        replace(group, fresh)
        new += fresh
    kept = [p.detach().clone() for p in params]
    if not moved:
        plain.state.clear()
    train(new, optimizer, range(2, 4))
    train(others, plain, range(2, 4))
    assert_same(everything(optimizer), everything(plain))
    assert_same([p.detach() for p in params], kept)  # what was replaced is left alone


def replaced_groups(optimizer: Any) -> None:
    """As trainers do that rebuild groups around a step."""
    optimizer.param_groups = [{**group} for group in optimizer.param_groups]


def emptied_and_added(optimizer: Any) -> None:
    groups = [{**group} for group in optimizer.param_groups]
    optimizer.param_groups.clear()
    for group in groups:
        optimizer.add_param_group(group)


def turned_around(optimizer: Any) -> None:
    optimizer.param_groups.reverse()


@pytest.mark.parametrize("change", [replaced_groups, emptied_and_added, turned_around])
@every
def test_groups_that_are_made_anew_change_nothing(name: str, change: Any) -> None:
    (params, optimizer), (others, plain) = attached(name), attached(name)
    for step in range(4):
        train(others, plain, range(step, step + 1))
        change(optimizer)
        train(params, optimizer, range(step, step + 1))
    assert_same(everything(optimizer), everything(plain))


@every_rule_apart
def test_a_group_that_is_taken_away_is_left_alone(name: str) -> None:
    params = [*parameters().values()]
    optimizer = described(name).attach([{"params": [p]} for p in params])
    train(params, optimizer, range(2))
    before = params[1].detach().clone()
    del optimizer.param_groups[1]
    train(params, optimizer, range(2, 4))
    assert torch.equal(params[1], before)
    alone = parameters()["c"]
    train_alone = described(name).attach([alone])
    for step in range(4):
        give(params, step)
        alone.grad = params[2].grad
        train_alone.step()
    assert torch.equal(params[2], alone)


@every_rule
def test_a_group_added_in_mid_run_starts_from_the_beginning(name: str) -> None:
    params = [*parameters().values()]
    optimizer = described(name).attach(params[:2])
    for step in range(4):
        if step == 2:
            optimizer.add_param_group({"params": params[2:], "lr": 0.01})
        give(params, step)
        optimizer.step()
    runs = {2: parameters(), 0: parameters()}
    early = described(name).attach([runs[0]["a"], runs[0]["b"]])
    late = described(name).attach([{"params": [runs[2]["c"]], "lr": 0.01}])
    for step in range(4):
        give([*runs[0].values()], step)
        early.step()
        if step >= 2:
            give([*runs[2].values()], step)
            late.step()
    assert_same([p.detach() for p in params], [runs[0]["a"].detach(), runs[0]["b"].detach(), runs[2]["c"].detach()])


# -- autograd and threads --------------------------------------------------------------------------


@every
def test_only_what_was_updated_is_a_new_version(name: str) -> None:
    params, optimizer = attached(name)
    for step in range(3):
        give(params, step)
        params[step].grad = None
        loss = sum((p**2).sum() for p in params)
        before = [p._version for p in params]
        optimizer.step()
        assert [p._version > old for p, old in zip(params, before, strict=True)] == [n != step for n in range(3)]
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()  # type: ignore[union-attr]


@every
def test_the_number_of_threads_changes_no_bit(name: str) -> None:
    runs = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        params = {
            n: nn.Parameter(torch.rand(shaped(name, size)) - 0.5)
            for n, size in (("a", 150_001), ("b", 66_000), ("c", 5))
        }
        optimizer = described(name).attach(params.items())
        train([*params.values()], optimizer, range(2))
        runs.append(everything(optimizer))
    torch.set_num_threads(1)
    assert_same(runs[1], runs[0])
    assert_same(runs[2], runs[0])


CYCLED = {"MultiOptimizer": "betas"} | {
    name: key for name in RULES for key in ("momentum", "betas") if key in described(name).group()
}


@pytest.mark.parametrize("name", CYCLED)
def test_momentum_or_betas_are_cycled(name: str) -> None:
    """torch's schedulers look into `defaults` for what they cycle; in a mixture with betas that is those."""
    params, optimizer = attached(name)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5)
    seen = []
    for step in range(4):
        train(params, optimizer, range(step, step + 1))
        scheduler.step()
        value = optimizer.param_groups[0][CYCLED[name]]
        seen.append(value if CYCLED[name] == "momentum" else value[0])
    assert max(seen) - min(seen) > 0.08


@pytest.mark.parametrize("name", sorted({*OPTIMIZERS} - {*CYCLED}))
def test_what_has_neither_momentum_nor_betas_is_refused_by_the_scheduler(name: str) -> None:
    _, optimizer = attached(name)
    with pytest.raises(ValueError, match="must support momentum or beta1 with `cycle_momentum`"):
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5)
