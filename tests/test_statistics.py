"""Statistics of steps: which steps and layers, what else there is in a step, what is kept."""

from __future__ import annotations

import copy
import math
import pickle
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from seen_by_hand import assert_seen, by_hand, network
from state_tensors import assert_same
from steady_runs import contents, give, parameters, taken
from torch import nn

import neon.torch
from neon.attached import layers_by_name
from neon.optimizers import (
    Adam,
    AdamW,
    GradientDescentMomentum,
    Lookahead,
    MultiOptimizer,
    Muon,
    NAdam,
)
from neon.statistics import Row, Statistics, StatisticsTable
from neon.stepping.looking import Looking

pytestmark = pytest.mark.usefixtures("one_thread")


def backward(model: nn.Module, step: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(step)
    (model(torch.randn(6, 20, generator=generator)).square().mean() * scale).backward()


def seen(model: nn.Module, optimizer: Any, step: int, **more: Any) -> StatisticsTable:
    """One step of a network, with what is expected of it."""
    backward(model, step)
    before = [p.detach().double() for p in model.parameters()]
    given = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    optimizer.step()
    optimizer.zero_grad()
    names, after = zip(*((n, p.detach().double()) for n, p in model.named_parameters()), strict=True)
    return by_hand(names, before, [*after], given, **more)


# -- which steps, which layers ---------------------------------------------------------------------


def test_one_step_of_three_is_looked_at_and_the_others_are_steady() -> None:
    params, others = parameters(), parameters()
    optimizer, other = Adam().attach(params, statistics=3), Adam().attach(others)
    found = []
    for step in range(12):
        for each in (params, others):
            give(each, step)
        optimizer.step()
        other.step()
        table = optimizer.statistics()
        found.append(table and table.step)
    assert found == [None, None, *(3 * (step // 3) for step in range(3, 13))]
    assert taken(optimizer) >= 5
    assert_same(contents(params, optimizer), contents(others, other))


def test_numbers_that_change_with_a_step_that_is_looked_at() -> None:
    """The tables of both ways to make a last stage go by them, and so does the steady step."""
    params, others = parameters(), parameters()
    description = GradientDescentMomentum(0.1, 0.9, wdecay=0.01)
    optimizer, other = description.attach(params, statistics=2), description.attach(others)
    for step in range(12):
        for each, its in ((params, optimizer), (others, other)):
            give(each, step)
            its.param_groups[0]["lr"] = 0.1 / (1 + step // 3)
            its.step()
        if step % 2:
            table = optimizer.statistics()
            assert table is not None
            assert table.rows[0].learning_rate == pytest.approx(0.1 / (1 + step // 3))
    assert_same(contents(params, optimizer), contents(others, other))


def test_numbers_that_are_new_in_a_look_before_the_first_steady_step() -> None:
    params, others = parameters(), parameters()
    description = GradientDescentMomentum(0.1, 0.9)
    optimizer, other = description.attach(params, statistics=2), description.attach(others)
    for step in range(4):
        for each, its in ((params, optimizer), (others, other)):
            give(each, step)
            if step == 1:
                its.param_groups[0]["lr"] = 0.01
            its.step()
    assert_same(contents(params, optimizer), contents(others, other))


def test_layers_by_name_pattern_and_class() -> None:
    model = network()
    optimizer = Adam().attach(model, statistics=Statistics(layers=["0.*", "2.bias"]))
    seen(model, optimizer, 0)
    table = optimizer.statistics()
    assert table is not None
    assert [row.parameter for row in table] == ["0.weight", "0.bias", "2.bias"]
    with pytest.raises(ValueError, match="fits no layer"):
        Adam().attach(model, statistics=Statistics(layers="head"))
    with pytest.raises(ValueError, match=r"layers='re:\(' is not a regular expression: missing \)"):
        Adam().attach(model, statistics=Statistics(layers="re:("))


def test_rows_are_in_the_order_of_the_model() -> None:
    model = network()
    mapping = MultiOptimizer({"default": AdamW(), "0.weight": Muon(units="float32"), "0.bias": None})
    optimizer = mapping.attach(model, statistics=True)
    seen(model, optimizer, 0)
    table = optimizer.statistics()
    assert table is not None
    assert [row.parameter for row in table] == ["0.weight", "2.weight", "2.bias"]


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, "statistics"), (-1, "statistics"), (1.5, "statistics"), ("all", "statistics"), (Statistics, "statistics")],
)
def test_what_is_no_request_is_refused(value: Any, error: str) -> None:
    with pytest.raises((TypeError, ValueError), match=error):
        Adam().attach(network(), statistics=value)


@pytest.mark.parametrize("arguments", [{"every": 0}, {"every": "two"}, {"layers": []}, {"layers": [3]}, {"layers": 3}])
def test_what_is_no_request_of_layers_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(arguments))):
        Statistics(**arguments)


def test_what_was_not_asked_for_is_not_there() -> None:
    with pytest.raises(RuntimeError, match="statistics=True"):
        Adam().attach(network()).statistics()


def test_a_captured_step_cannot_be_looked_at() -> None:
    with pytest.raises(ValueError, match="statistics cannot be had with capturable=True"):
        Adam().attach(network(), statistics=True, capturable=True)


# -- what else there is in a step ------------------------------------------------------------------


def test_norms_over_several_layers() -> None:
    model = network()
    mapping = MultiOptimizer({"default": Adam(gradient_clip_norm=0.01)}, gradient_clip_norm=0.1)
    optimizer = mapping.attach(model, statistics=True)
    for step in range(3):
        expected = seen(model, optimizer, step, norms=(0.1, 0.01), rate=0.001)
        assert_seen(optimizer.statistics(), expected)


def test_a_rate_with_a_scale() -> None:
    model = network()
    optimizer = AdamW(learning_rate=0.01, lr_scale=0.5).attach(model, statistics=True)
    seen(model, optimizer, 0)
    table = optimizer.statistics()
    assert table is not None
    assert {row.learning_rate for row in table} == {0.005}


@pytest.mark.parametrize("description", [NAdam(), Lookahead(AdamW()), Adam(weight_average=0.9)])
def test_numbers_of_tensors_and_transforms(description: Any) -> None:
    model = network()
    optimizer = description.attach(model, statistics=True)
    for step in range(7):
        expected = seen(model, optimizer, step)
    assert_seen(optimizer.statistics(), expected)


def test_in_the_backward_pass() -> None:
    models, tables = (network(), network()), []
    for model, in_backward in zip(models, (True, False), strict=True):
        optimizer = Adam().attach(model, statistics=2, in_backward=in_backward)
        found = []
        for step in range(6):
            backward(model, step)
            optimizer.step()
            optimizer.zero_grad()
            found.append(optimizer.statistics())
        tables.append(found)
    assert [table and table.step for table in tables[0]] == [None, 2, 2, 4, 4, 6]
    for found, expected in zip(*tables, strict=True):
        assert found == expected


@pytest.mark.parametrize("longest", [0, 1])
def test_in_the_backward_pass_all_of_a_step_is_seen_after_a_checkpoint(longest: int) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    first = Adam().attach(model)
    for step in range(8):
        for place, layer in enumerate(model):
            for param in layer.parameters():
                param.grad = torch.ones_like(param) if place == longest or step < 4 else None
        first.step()
    optimizer = Adam().attach(model, statistics=3, in_backward=True)
    optimizer.load_state_dict(first.state_dict())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    table = optimizer.statistics()
    assert table is not None
    assert (table.step, len(table)) == (9, 4)


def test_a_scaler_leaves_steps_out_and_gradients_are_unscaled() -> None:
    model, plain = network(), network()
    optimizer, other = Adam().attach(model, statistics=True), Adam().attach(plain, statistics=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        loss = model(torch.randn(6, 20, generator=generator)).square().mean()
        scaler.scale(loss if step != 2 else loss * math.inf).backward()
        scaler.step(optimizer)
        scaler.update(1024.0)
        optimizer.zero_grad()
        if step != 2:
            backward(plain, step)
            other.step()
            other.zero_grad()
        found, expected = optimizer.statistics(), other.statistics()
        assert found is not None
        assert expected is not None
        assert found.step == expected.step == step + (step < 2)
        assert_seen(found, expected)


def test_a_step_that_is_left_out_leaves_the_table_of_the_last() -> None:
    model = network()
    optimizer = Adam().attach(model, statistics=True, skip_nonfinite=True)
    seen(model, optimizer, 0)
    before = optimizer.statistics()
    backward(model, 1, math.nan)
    optimizer.step()
    assert optimizer.skipped_steps == 1
    assert optimizer.statistics() == before


def test_gradients_that_are_not_finite_are_seen() -> None:
    model = network()
    optimizer = Adam(gradient_clip_norm=1.0).attach(model, statistics=True)
    backward(model, 0)
    grad = model[2].bias.grad
    assert grad is not None
    grad[1] = math.nan
    optimizer.step()
    table = optimizer.statistics()
    assert table is not None
    last = table["2.bias"]
    assert math.isnan(last.gradient_norm)
    assert math.isnan(last.largest_gradient)
    assert all(math.isnan(row.update_norm) and math.isnan(row.clip_factors[0]) for row in table)
    assert math.isfinite(table["0.weight"].gradient_norm)


def test_tiny_and_huge_gradients() -> None:
    """Squares that float32 has not."""
    param = nn.Parameter(torch.ones(1000))
    optimizer = Adam().attach([("w", param)], statistics=True)
    for size in (1e-30, 1e30):
        param.grad = torch.full((1000,), size)
        optimizer.step()
        table = optimizer.statistics()
        assert table is not None
        assert table["w"].gradient_norm == pytest.approx(size * math.sqrt(1000), rel=1e-6)


def test_parameters_without_gradients_are_not_in_the_table() -> None:
    model = network()
    optimizer = Adam().attach(model, statistics=True)
    for missing in (None, "0.bias", None):
        backward(model, 0)
        for name, param in model.named_parameters():
            param.grad = None if name == missing else param.grad
        optimizer.step()
        table = optimizer.statistics()
        assert table is not None
        assert [row.parameter for row in table] == [n for n, _ in model.named_parameters() if n != missing]


def test_the_last_table_stays_where_a_device_has_left_all_since_out() -> None:
    looking, found = Looking(1), []
    for left_out in (True, False, True, True, True):
        looking.made([SimpleNamespace(left_out=left_out, lines=list)])  # type: ignore[list-item]
        found.append(looking.last(lambda step, _: step))
    assert found == [None, 2, 2, 2, 2]


def test_a_step_without_gradients_is_none() -> None:
    params, others = parameters(), parameters()
    optimizer, other = Adam().attach(params, statistics=3), Adam().attach(others)
    found = []
    for step in range(16):
        for each in (params, others):
            give(each, step)
            for param in each if step % 8 >= 4 else ():
                param.grad = None
        optimizer.step()
        other.step()
        table = optimizer.statistics()
        found.append(table and table.step)
    assert found == [None, None, *[3] * 7, *[6] * 7]
    assert_same(contents(params, optimizer), contents(others, other))


def test_parameters_without_names_are_told_apart() -> None:
    first, second = parameters()[:2], parameters()[2:]
    optimizer = neon.torch.AdamW([{"params": first}, {"params": second, "lr": 0.5}], statistics=True)
    give([*first, *second], 0)
    optimizer.step()
    table = optimizer.statistics()
    assert table is not None
    names = ["group_0.0", "group_0.1", "group_1.0", "group_1.1", "group_1.2"]
    assert [row.parameter for row in table] == [row.layer for row in table] == names
    assert [row.learning_rate for row in table] == [0.001] * 2 + [0.5] * 3


@pytest.mark.parametrize("in_backward", [False, True])
def test_parameters_with_one_name_are_told_apart(in_backward: bool) -> None:
    """Of two networks in one optimizer, each has rows of its own; what is called differently keeps its name."""
    first, second = nn.Linear(3, 2), nn.Sequential(nn.Linear(2, 4, bias=False))
    named = [*first.named_parameters(), ("weight", second[0].weight)]
    optimizer = Adam().attach(named, statistics=True, in_backward=in_backward)
    norms = [float(param.detach().norm()) for _, param in named]
    second(first(torch.ones(5, 3))).square().mean().backward()
    optimizer.step()
    table = optimizer.statistics()
    assert table is not None
    assert {row.parameter: row.elements for row in table} == {"bias": 2, "group_0.0": 6, "group_0.2": 8}
    assert [table[name].weight_norm for name in ("group_0.0", "bias", "group_0.2")] == pytest.approx(norms)
    assert len(table.by_layer()) == 3


def test_layers_that_have_one_name_are_found() -> None:
    named = [("0.weight", nn.Parameter(torch.ones(2))), ("1.weight", nn.Parameter(torch.ones(3)))]
    optimizer = Adam().attach([*named, ("0.weight", nn.Parameter(torch.ones(4)))], statistics=Statistics(layers="0"))
    for param in optimizer.param_groups[0]["params"]:
        param.grad = torch.ones_like(param)
    optimizer.step()
    table = optimizer.statistics()
    assert table is not None
    assert [row.parameter for row in table] == ["group_0.0", "group_0.2"]


def test_many_layers_are_found_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of 300 named layers took a second to make."""
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(40)))
    optimizer = Adam().attach(model, statistics=Statistics(layers=[str(place) for place in range(0, 40, 2)]))
    asked: list[Any] = []
    strongest = layers_by_name.strongest_key
    monkeypatch.setattr(layers_by_name, "strongest_key", lambda *given: asked.append(given) or strongest(*given))
    model(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    table = optimizer.statistics()
    assert table is not None
    assert (len(table), len(asked)) == (40, 80)


def test_nan_is_not_clipped() -> None:
    param = nn.Parameter(torch.ones(4))
    optimizer = Adam(gradient_clip_value=1.0).attach([("w", param)], statistics=True)
    param.grad = torch.tensor([math.nan, math.inf, -3.0, 0.5])
    optimizer.step()
    table = optimizer.statistics()
    assert table is not None
    assert table["w"].clipped == 0.5


def test_drop_ins_and_other_thread_counts() -> None:
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        param = nn.Parameter(torch.linspace(-1, 2, 210_000))
        param.grad = torch.linspace(1, -3, 210_000)
        optimizer = neon.torch.AdamW([("w", param)], statistics=True)
        optimizer.step()
        found.append(optimizer.statistics())
    assert found[0] == found[1]
    assert isinstance(found[0]["w"], Row)


# -- what is kept ----------------------------------------------------------------------------------


def test_steps_go_on_where_a_checkpoint_was_made() -> None:
    model = network()
    optimizer = Adam().attach(model, statistics=2)
    for step in range(5):
        seen(model, optimizer, step)
    saved = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    assert "statistics" not in str(saved)
    resumed = network()
    again = Adam().attach(resumed, statistics=2)
    resumed.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    for step in (5, 6, 7):
        expected = seen(model, optimizer, step)
        seen(resumed, again, step)
        assert again.statistics() == optimizer.statistics()
    table = again.statistics()
    assert table is not None
    assert table.step == 8
    assert_seen(table, expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_copies_look_for_themselves(copied: Any) -> None:
    model = network()
    optimizer = Adam().attach(model, statistics=2)
    for step in range(3):
        seen(model, optimizer, step)
    other = copied(optimizer)
    assert other.statistics() is None
    for param, grad in zip(other.param_groups[0]["params"], model.parameters(), strict=True):
        param.grad = torch.ones_like(grad)
    other.step()
    table = other.statistics()
    assert table is not None
    assert table.step == 4


def test_what_was_seen_keeps_no_gradient() -> None:
    model = network()
    optimizer = Adam().attach(model, statistics=True)
    backward(model, 0)
    gradient = weakref.ref(model[0].weight.grad)  # type: ignore[arg-type]
    optimizer.step()
    optimizer.zero_grad()
    assert gradient() is None
    assert optimizer.statistics() is not None
