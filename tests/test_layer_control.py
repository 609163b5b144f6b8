"""Layers under control: values of their own, frozen ones, new ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from optimizer_contents import assert_same
from torch import nn

from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, WarmupCosine
from neon.stepping.overrides import overrides_of

pytestmark = pytest.mark.usefixtures("one_thread")


def sgd(rate: float = 1.0, momentum: float = 0.0, **options: Any) -> GradientDescentMomentum:
    return GradientDescentMomentum(rate, momentum, **options)


def network() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Sequential(nn.Linear(4, 3)))
    return model.requires_grad_()


def train(model: nn.Module, optimizer: Any, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        (model(x) - x.flip(1)).square().sum().backward()
        optimizer.step()


def zeros(model: nn.Module, optimizer: Any) -> dict[str, float]:
    """Where each parameter is after a step from zero with gradients of one."""
    for p in model.parameters():
        nn.init.zeros_(p)
        p.grad = torch.ones_like(p)
    optimizer.step()
    return {name: p.flatten()[0].item() for name, p in model.named_parameters()}


def values(optimizer: Any) -> list[dict[str, Any]]:
    return copy.deepcopy([{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups])


NAMED = ["0.weight", "0.bias", "1.weight", "1.bias", "2.0.weight", "2.0.bias"]
KEYS = {
    "0": {"0.weight", "0.bias"},
    "0.weight": {"0.weight"},
    "2": {"2.0.weight", "2.0.bias"},
    "2.*": {"2.0.weight", "2.0.bias"},
    "*.bias": {"0.bias", "1.bias", "2.0.bias"},
    "re:[01]\\.weight": {"0.weight", "1.weight"},
    "LayerNorm": {"1.weight", "1.bias"},
    "Linear": {"0.weight", "0.bias", "2.0.weight", "2.0.bias"},
    "Bias": {"0.bias", "1.bias", "2.0.bias"},
}


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("layers", KEYS)
def test_set_and_unset_by_key(layers: str, many: bool) -> None:
    """Across groups too."""
    model = network()
    made = MultiOptimizer({"default": sgd(), "2": sgd(), "Bias": sgd()}) if many else sgd()
    optimizer: Any = made.attach(model)
    optimizer.set("lr", 3.0, layers=layers)
    assert zeros(model, optimizer) == {name: -3 if name in KEYS[layers] else -1 for name in NAMED}
    optimizer.set("lr", 2.0)  # of the groups: layers keep theirs
    assert zeros(model, optimizer) == {name: -3 if name in KEYS[layers] else -2 for name in NAMED}
    assert repr(optimizer).count("Linear") >= 2
    optimizer.unset("lr", layers)
    assert zeros(model, optimizer) == dict.fromkeys(NAMED, -2.0)
    assert not any(overrides_of(group) for group in optimizer.param_groups)


def test_two_values_on_one_layer_and_the_later_call_holds() -> None:
    model = network()
    optimizer: Any = sgd().attach(model)
    optimizer.set("lr", 3.0, layers="0")
    optimizer.set("gradient_clip_value", 0.5, layers="0.*")
    optimizer.set("lr", 5.0, layers="Bias")
    found = zeros(model, optimizer)
    assert (found["0.weight"], found["0.bias"], found["1.bias"], found["1.weight"]) == (-1.5, -2.5, -5, -1)


@pytest.mark.parametrize(
    ("name", "value", "made"),
    [("nesterov", True, sgd(0.01, 0.9)), ("betas", (0.5, 0.6), Adam()), ("weight_decay", 0.3, Adam())],
)
def test_values_of_a_layer_are_those_of_a_group(name: str, value: Any, made: Any) -> None:
    a, b = network(), network()
    one: Any = made.attach(a)
    one.set(name, value, layers="2")
    two: Any = made.attach([{"params": [*b[:2].parameters()]}, {"params": [*b[2].parameters()], name: value}])
    for model, optimizer in ((a, one), (b, two)):
        train(model, optimizer, range(4))
    assert_same(one, two)


@pytest.mark.parametrize("made", [Adam(), Adam(schedule=WarmupCosine(2, 9, unit="steps"))], ids=["torch", "neon"])
def test_what_is_set_lasts_through_schedules_copies_and_checkpoints(made: Any) -> None:
    model = network()
    optimizer: Any = made.attach(model)
    optimizer.set("lr", 0.0, layers="0.weight")
    optimizer.freeze("1")
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for step in range(2):
        train(model, optimizer, range(step, step + 1))
        scheduler.step()
    copied, twin = copy.deepcopy((model, optimizer))
    loaded_model = network()
    loaded: Any = made.attach(loaded_model)
    loaded_model.load_state_dict(copy.deepcopy(model.state_dict()))
    loaded.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for net, opt in ((model, optimizer), (copied, twin), (loaded_model, loaded)):
        train(net, opt, range(2, 4))
        still = {name for name, p in net.named_parameters() if torch.equal(p, before[name])}
        assert still == {"0.weight", "1.weight", "1.bias"}
        assert_same(opt, optimizer)


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "unknown value": (lambda o: o.set("learning_rat", 1.0, layers="0"), "No parameter group has a value"),
    "unknown value, all": (lambda o: o.set("momentun", 1.0), "Their values: .*momentum"),
    "not for layers": (lambda o: o.set("params", [], layers="0"), "No parameter group has a value 'params'"),
    "bad value": (lambda o: o.set("lr", -1.0, layers="0"), "lr must"),
    "bad value, all": (lambda o: o.set("lr", float("nan")), "lr must"),
    "no layer": (lambda o: o.set("lr", 1.0, layers="2.0.wieght"), "Did you mean '2.0.weight'"),
    "no layer to freeze": (lambda o: o.freeze("head"), "fits no layer of this optimizer"),
    "bounds of norms": (
        lambda o: (
            MultiOptimizer({"default": sgd()}, gradient_clip_norm=1.0)
            .attach(network())
            .set("outer_clip_norms", (), layers="0")
        ),
        "outer_clip_norms must have 1 bounds",
    ),
    "norm of a part": (
        lambda o: sgd().attach(network(), partitioned=True).set("gradient_clip_norm", 1.0, layers="0"),
        "cannot be set for layers with partitioned=True",
    ),
    "nothing new": (lambda o: o.add_layers(network_of(o)), "nothing to add"),
}


def test_a_value_of_another_rule_is_refused() -> None:
    optimizer: Any = MultiOptimizer({"default": Adam(), "0": sgd()}).attach(network())
    before = values(optimizer)
    with pytest.raises(ValueError, match="belong to '0', which has no value 'betas'"):
        optimizer.set("betas", (0.5, 0.5), layers="0")
    assert values(optimizer) == before
    optimizer.set("betas", (0.5, 0.5), layers="*")
    assert [bool(overrides_of(group)) for group in optimizer.param_groups] == [True, False]


def test_tensors_are_kept_as_the_numbers_that_they_were() -> None:
    """Two that print alike are not taken for one another, and later changes are not half seen."""
    model, rates = network(), [torch.tensor(1.00001, dtype=torch.float64), torch.tensor(1.00002, dtype=torch.float64)]
    optimizer: Any = sgd().attach(model)
    for layer, rate in zip("01", rates, strict=True):
        optimizer.set("lr", rate, layers=layer)
        rate.zero_()
    assert [-zeros(model, optimizer)[f"{layer}.bias"] for layer in "01"] == pytest.approx([1.00001, 1.00002], abs=1e-7)


def test_a_tensor_for_all_is_each_groups_own() -> None:
    """A scheduler fills it in place: once for each group, with that group's rate."""
    optimizer: Any = MultiOptimizer({"default": sgd(), "0": sgd()}).attach(network())
    optimizer.set("lr", torch.tensor(0.5))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda step: 0.5**step, lambda step: 0.25**step])
    optimizer.step()
    scheduler.step()
    assert [float(group["lr"]) for group in optimizer.param_groups] == [0.25, 0.125]


def network_of(optimizer: Any) -> Any:
    return [("p", p) for group in optimizer.param_groups for p in group["params"]][:1]


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_changes_nothing(what: str) -> None:
    call, words = REFUSED[what]
    optimizer: Any = sgd().attach(network())
    before = values(optimizer)
    with pytest.raises(ValueError, match=words):
        call(optimizer)
    assert values(optimizer) == before


def test_parameters_without_names_are_refused() -> None:
    optimizer: Any = sgd().attach(network().parameters())
    with pytest.raises(ValueError, match="have no names"):
        optimizer.freeze("0")
    with pytest.raises(ValueError, match="have no names"):
        optimizer.add_layers([("new", nn.Parameter(torch.zeros(1)))])


@pytest.mark.parametrize("in_backward", [False, True])
def test_frozen_layers_stand_still_and_go_on(in_backward: bool) -> None:
    model = network()
    optimizer: Any = Adam(wdecay=0.1).attach(model, in_backward=in_backward)
    train(model, optimizer, range(2))
    own = [*model[0].parameters()]
    before = copy.deepcopy([(p.detach(), {**optimizer.state[p]}) for p in own])
    optimizer.freeze("0")
    train(model, optimizer, range(2, 4))
    torch.testing.assert_close([(p.detach(), {**optimizer.state[p]}) for p in own], before, rtol=0, atol=0)
    optimizer.unfreeze("0")
    train(model, optimizer, range(4, 5))
    assert [optimizer.state[p]["step"].item() for p in model.parameters()] == [3, 3, 5, 5, 5, 5]


@pytest.mark.parametrize("outer", [False, True])
def test_norms_do_not_count_what_is_frozen(outer: bool) -> None:
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    made = MultiOptimizer({"default": sgd()}, gradient_clip_norm=5.0) if outer else sgd(gradient_clip_norm=5.0)
    optimizer: Any = made.attach([("a", a), ("b", b)])
    optimizer.freeze("a")
    a.grad, b.grad = torch.tensor([100.0]), torch.tensor([4.0])
    optimizer.step()
    assert (a.item(), b.item()) == (0, -4)


def test_freezing_leaves_random_bits_alone() -> None:
    """Of the layers after it, as if it were not frozen."""
    ends = []
    for frozen in (False, True):
        params = [(name, nn.Parameter(torch.linspace(1, 2, 50).bfloat16())) for name in "abc"]
        optimizer: Any = Adam(stochastic_round=True).attach(params)
        if frozen:
            optimizer.freeze("a")
        for _ in range(3):
            for _, p in params:
                p.grad = torch.full_like(p, 0.3)
            optimizer.step()
        ends.append([p for name, p in params if name != "a"])
    assert all(map(torch.equal, *ends))


@pytest.mark.parametrize("in_backward", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_new_layers_go_to_the_group_of_their_key(named: bool, in_backward: bool) -> None:
    model = network()
    optimizer: Any = MultiOptimizer({"default": sgd(0.1), "Bias": sgd(0.2)}).attach(
        model.named_parameters() if named else model, in_backward=in_backward
    )
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    train(model, optimizer, range(1))
    model.append(nn.Linear(3, 3))
    optimizer.add_layers(model.named_parameters() if named else model)
    assert [group["param_names"][-1] for group in optimizer.param_groups] == ["3.weight", "3.bias"]
    assert "3" in repr(optimizer)
    before = copy.deepcopy([*model[3].parameters()])
    train(model, optimizer, range(1, 2))
    scheduler.step()
    assert not any(map(torch.equal, before, model[3].parameters()))
    assert [group["lr"] for group in optimizer.param_groups] == [0.05, 0.1]


def test_a_layer_in_the_place_of_another() -> None:
    model = network()
    optimizer: Any = Adam().attach(model)
    train(model, optimizer, range(2))
    old = [*model[2].parameters()]
    model[2] = nn.Sequential(nn.Linear(4, 3))
    optimizer.add_layers(model)
    assert sorted(optimizer.param_groups[0]["param_names"]) == sorted(NAMED)
    assert not any(p in optimizer.state for p in old)
    train(model, optimizer, range(2, 3))
    assert [optimizer.state[p]["step"].item() for p in model.parameters()] == [3, 3, 3, 3, 1, 1]


@pytest.mark.parametrize("has_group", [True, False])
def test_a_layer_of_another_kind_in_the_place_of_another(has_group: bool) -> None:
    """Nothing is left of the old layer: neither in its group nor among the values that were set."""
    model = network()
    optimizer: Any = MultiOptimizer({"default": sgd(), "LayerNorm": sgd(0.5)}).attach(model)
    if not has_group:
        del optimizer.param_groups[1]
        model[1] = nn.LayerNorm(4, elementwise_affine=False)
    optimizer.freeze("0")
    optimizer.set("lr", 0.25, layers="2")
    model[0] = nn.LayerNorm(3)
    optimizer.add_layers(model)
    assert optimizer.param_groups[0]["param_names"] == ["2.0.weight", "2.0.bias"]
    assert optimizer.param_groups[1]["param_names"][-2:] == ["0.weight", "0.bias"]
    ends = zeros(model, optimizer)
    assert [ends[name] for name in ("0.weight", "0.bias", "2.0.weight", "2.0.bias")] == [-0.5, -0.5, -0.25, -0.25]
    optimizer.load_state_dict(optimizer.state_dict())


def test_what_is_not_a_leaf_is_not_added() -> None:
    optimizer: Any = sgd().attach(network())
    before = values(optimizer)
    with pytest.raises(ValueError, match="'new' is not a leaf"):
        optimizer.add_layers([("fine", nn.Parameter(torch.ones(1))), ("new", torch.ones(1, requires_grad=True) * 2)])
    assert values(optimizer) == before
