"""optimize(layer_list, epoch) and get_param_list: lists, states, what is not cached, clipping, schedules."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_layers import Plain, plain
from torch import nn

from neon.backends import Backend, gen_backend
from neon.initializers import Gaussian
from neon.layers import LSTM, Activation, Affine, Linear
from neon.optimizers import (
    Adadelta,
    Adagrad,
    Adam,
    AdamW,
    GradientDescentMomentum,
    Lion,
    MultiOptimizer,
    Optimizer,
    RMSProp,
    Schedule,
    ShiftAdaMax,
    WarmupStableDecay,
    get_param_list,
)
from neon.transforms import Tanh


class Container:
    def __init__(self, *layers: Any) -> None:
        self.layers = list(layers)


class Pair:
    """A layer of several parameters."""

    def __init__(self, *parts: Plain) -> None:
        self.parts = parts

    def get_params(self) -> Any:
        return [part.get_params() for part in self.parts]


# -- the parameter list ----------------------------------------------------------------------------


def test_lists_containers_and_layers_are_flattened_in_order() -> None:
    a, b, c, d, e = (Plain([float(i)], [1.0]) for i in range(5))
    empty = Pair()
    found = get_param_list([a, [empty, [b], ()], Container(c, Container(), [Pair(d, e)])])
    assert [param.item() for (param, _), _ in found] == [0, 1, 2, 3, 4]
    assert all(states is layer.states for (_, states), layer in zip(found, (a, b, c, d, e), strict=True))
    assert all(grad is layer.g for ((_, grad), _), layer in zip(found, (a, b, c, d, e), strict=True))
    assert get_param_list([]) == get_param_list([empty]) == []
    assert len(get_param_list(a)) == len(get_param_list(Container(a))) == 1


def test_neons_layers_and_torchs_modules_are_layers() -> None:
    layers = [
        Affine(3, Gaussian(), activation=Tanh()),
        [nn.Linear(3, 4), nn.Sequential(nn.LayerNorm(4), nn.Dropout())],
        LSTM(2, Gaussian()),
        Activation(Tanh()),
    ]
    assert get_param_list(layers) == []  # nothing has a gradient
    x = layers[0](torch.ones(2, 5))  # type: ignore[operator]
    for layer in (*layers[1], nn.Unflatten(1, (1, 4)), *layers[2:]):  # type: ignore[misc]
        x = layer(x)
    x.sum().backward()
    found = get_param_list(layers)
    assert [tuple(param.shape) for (param, _), _ in found] == [
        (3, 5), (3,), (4, 3), (4,), (4,), (4,), (8, 4), (8, 2), (8,), (8,),
    ]  # fmt: skip
    assert all(grad is not None and grad.shape == param.shape for (param, grad), _ in found)


def test_what_has_no_gradient_is_left_out() -> None:
    layer = nn.Linear(2, 2)
    layer.weight.grad = torch.ones(2, 2)
    assert len(get_param_list([layer, Plain([1.0], None)])) == 1
    layer.weight.requires_grad_(requires_grad=False)
    layer.weight.grad = None
    assert get_param_list([layer]) == []


@pytest.mark.parametrize("layer", [nn.Linear(2, 2, bias=False), Linear(2, Gaussian())], ids=["torch", "neon"])
def test_states_are_one_list_and_parameters_are_aliases(layer: Any) -> None:
    layer(torch.ones(1, 2)).sum().backward()
    [((param, grad), states)] = get_param_list([layer])
    [((again, _), same)] = get_param_list([layer])
    assert states == []
    assert states is same
    assert grad is layer.weight.grad
    assert not param.requires_grad
    param[:] = param + 1
    assert torch.equal(layer.weight, param)
    assert torch.equal(layer.weight, again)
    states.append(torch.ones(2, 2))
    Adagrad().optimize([[layer]], 0)
    assert get_param_list([layer])[0][1] is states
    assert len(states) == 1


def test_a_layer_may_give_its_parameter_as_it_is() -> None:
    """Raw torch parameters, which autograd guards against writing in place, are given as aliases."""
    layer = Plain([1.0], [1.0])
    layer.w = nn.Parameter(layer.w)
    [((param, _), _)] = get_param_list([layer])
    param[:] = param - 0.5
    assert layer.w.item() == 0.5
    GradientDescentMomentum(0.25, 0.0).optimize([layer], 0)
    assert layer.w.item() == 0.25


def test_an_alias_follows_its_parameter() -> None:
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.grad = torch.ones(2, 2)
    get_param_list([layer])
    layer.weight.data = torch.zeros(2, 2)
    GradientDescentMomentum(1.0, 0.0).optimize([layer], 0)
    assert layer.weight.tolist() == [[-1, -1], [-1, -1]]


def test_tied_weights_are_listed_once() -> None:
    a, b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    b.weight = a.weight
    a.weight.grad = torch.ones(2, 2)
    assert len(get_param_list([a, [b]])) == 1


# -- states ----------------------------------------------------------------------------------------


G = torch.tensor([0.5, -2.0], dtype=torch.float64)
# rule: (optimizer, its states after a first step with the gradient G)
ORDER: dict[str, tuple[Callable[[], Optimizer], list[torch.Tensor]]] = {
    "descent": (lambda: GradientDescentMomentum(0.1, 0.0), []),
    "momentum": (lambda: GradientDescentMomentum(0.1, 0.9), [-0.1 * G]),
    "rmsprop": (lambda: RMSProp(decay_rate=0.75), [0.25 * G**2]),
    "adagrad": (lambda: Adagrad(), [G**2]),
    "adadelta": (
        lambda: Adadelta(decay=0.75, epsilon=0.5),
        [0.25 * G**2, 0.25 * (0.5 / (0.25 * G**2 + 0.5)) * G**2],
    ),
    "adam": (lambda: Adam(beta_1=0.75, beta_2=0.5), [0.25 * G, 0.5 * G**2]),
    "adamw": (lambda: AdamW(beta_1=0.75, beta_2=0.5), [0.25 * G, 0.5 * G**2]),
    "lion": (lambda: Lion(beta_2=0.75), [0.25 * G]),
    "shift": (lambda: ShiftAdaMax(beta_1=0.75), [0.25 * G, G.abs()]),
}


@pytest.mark.parametrize("rule", ORDER)
def test_states_come_in_the_documented_order(rule: str) -> None:
    opt, expected = ORDER[rule]
    layer = Plain([0.5, 0.5], G)
    opt().optimize([layer], 0)
    torch.testing.assert_close(layer.states, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("rule", [rule for rule, (_, states) in ORDER.items() if states])
def test_states_of_the_callers_are_used_and_kept(rule: str) -> None:
    """A run whose states are handed over in mid-run goes on as if nothing had happened."""
    opt = ORDER[rule][0]()
    whole, first = plain(), plain()
    for layer in (whole, first):
        opt.optimize([layer], 0)
    second = Plain(first.w.clone(), first.g)
    given = first.states
    second.states = given
    kept = list(given)
    for layer in (whole, second):
        opt.optimize([layer], 1)
    assert second.states is given
    assert all(a is b for a, b in zip(given, kept, strict=True))
    assert torch.equal(whole.w, second.w)
    assert all(map(torch.equal, whole.states, second.states))


def test_cleared_states_start_anew() -> None:
    layer, fresh, opt = plain(), plain(), Adam(learning_rate=0.1)
    for _ in range(3):
        opt.optimize([layer], 0)
    layer.states.clear()
    layer.w.copy_(fresh.w)
    opt.optimize([layer], 0)
    Adam(learning_rate=0.1).optimize([fresh], 0)
    assert torch.equal(layer.w, fresh.w)
    assert len(layer.states) == 2


def test_states_written_by_the_user_count_at_the_next_step() -> None:
    layer, opt = Plain([1.0], [0.0]), GradientDescentMomentum(0.1, 0.5)
    opt.optimize([layer], 0)
    layer.states[0].fill_(0.5)
    opt.optimize([layer], 0)
    assert layer.w.item() == 1.25
    layer.states[0] = torch.tensor([2.0], dtype=torch.float64)
    opt.optimize([layer], 0)
    assert layer.w.item() == 2.25


# -- what is not cached ----------------------------------------------------------------------------


def test_a_changed_layer_list_is_seen() -> None:
    a, b, c = (Plain([0.0], [1.0]) for _ in range(3))
    opt, layers = GradientDescentMomentum(1.0, 0.0), [a]
    opt.optimize(layers, 0)
    layers.append(b)
    opt.optimize(layers, 0)
    layers[0] = c
    opt.optimize(layers, 0)
    layers[:] = [Container(a)]
    opt.optimize(layers, 0)
    assert [x.w.item() for x in (a, b, c)] == [-3, -2, -1]


def test_how_weights_are_kept_may_change_between_steps() -> None:
    layer, opt = Plain([1.0], [2.0**-10], torch.bfloat16), GradientDescentMomentum(1.0, 0.0)
    opt.optimize([layer], 0)
    assert layer.w.item() == 1  # a quarter of the spacing
    opt.master = "split"
    for _ in range(4):
        opt.optimize([layer], 0)
    assert layer.w.item() == 1 - 2.0**-8


def test_a_changed_seed_counts_from_the_next_step() -> None:
    ends = []
    for seed in (0, 1):
        layer, opt = Plain([1.0] * 64, [2.0**-9] * 64, torch.bfloat16), GradientDescentMomentum(1.0, 0.0)
        opt.stochastic_round = True
        opt.optimize([layer], 0)
        opt.seed = seed
        opt.optimize([layer], 0)
        ends.append(layer.w)
    assert not torch.equal(*ends)


def test_a_list_without_the_low_bits_of_its_weight_is_refused() -> None:
    layer, opt = Plain([1.0], [1.0], torch.bfloat16), Adam()
    opt.optimize([layer], 0)
    opt.master = "split"
    with pytest.raises(ValueError, match=r"holds 2 tensors; adam keeps 3 \(exp_avg, exp_avg_sq, and 1 beside them\)"):
        opt.optimize([layer], 0)


def test_parameters_and_gradients_may_be_replaced() -> None:
    layer, opt = Plain([0.0], [1.0]), GradientDescentMomentum(1.0, 0.5)
    opt.optimize([layer], 0)
    old = layer.w
    layer.w, layer.g = torch.tensor([10.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64)
    opt.optimize([layer], 0)
    assert (old.item(), layer.w.item()) == (-1, 7.5)
    layer.g = None
    opt.optimize([layer], 0)
    layer.g = torch.tensor([0.0], dtype=torch.float64)
    opt.optimize([layer], 0)
    assert layer.w.item() == 6.25


def test_two_models_may_take_turns() -> None:
    opt, alone = Adam(learning_rate=0.1), Adam(learning_rate=0.1)
    models = [[plain(seed)] for seed in (0, 10)]
    expected = [[plain(seed)] for seed in (0, 10)]
    for _ in range(3):
        for model in models:
            opt.optimize(model, 0)
    for model in expected:
        for _ in range(3):
            alone.optimize(model, 0)
    assert all(torch.equal(m[0].w, e[0].w) for m, e in zip(models, expected, strict=True))


@pytest.mark.parametrize("rule", ORDER)
def test_gradients_are_never_written(rule: str) -> None:
    layer = plain()
    before, version = layer.g.clone(), layer.g._version  # type: ignore[union-attr]
    opt = ORDER[rule][0]()
    opt.gradient_clip_norm, opt.gradient_clip_value, opt.wdecay = 0.5, 0.1, 0.1
    opt.optimize([layer], 0)
    assert torch.equal(layer.g, before)  # type: ignore[arg-type]
    assert layer.g._version == version  # type: ignore[union-attr]


# -- batch size and clipping -----------------------------------------------------------------------


def test_gradients_are_divided_by_the_batch_size() -> None:
    layer, opt = Plain([0.0], [6.0]), GradientDescentMomentum(1.0, 0.0)
    assert opt.be.bsz == 1
    assert gen_backend(batch_size=4) is opt.be
    opt.optimize([layer], 0)
    assert layer.w.item() == -1.5
    opt.be.bsz = 3  # for every optimizer: there is one backend
    MultiOptimizer({"default": GradientDescentMomentum(1.0, 0.0)}).optimize([layer], 0)
    assert layer.w.item() == -3.5


def test_an_optimizer_may_have_a_backend_of_its_own() -> None:
    layer, opt = Plain([0.0], [6.0]), GradientDescentMomentum(1.0, 0.0)
    opt.be = Backend(batch_size=2)
    opt.optimize([layer], 0)
    assert layer.w.item() == -3
    assert GradientDescentMomentum(1.0, 0.0).be.bsz == 1


def test_the_norm_is_of_the_mean_gradient() -> None:
    a, b = Plain([0.0], [30.0]), Plain([0.0], [40.0])
    gen_backend(batch_size=10)
    GradientDescentMomentum(1.0, 0.0, gradient_clip_norm=2.5, gradient_clip_value=1.75).optimize([a, b], 0)
    assert (a.w.item(), b.w.item()) == pytest.approx((-1.5, -1.75), rel=1e-14)


def test_clip_gradient_norm_and_value_by_hand() -> None:
    opt = Optimizer()
    entries = get_param_list([Plain([0.0], [3.0]), Plain([[0.0]], [[-4.0]])])
    assert opt.clip_gradient_norm(entries, None) == 1
    assert opt.clip_gradient_norm(entries, 10.0) == 1
    assert float(opt.clip_gradient_norm(entries, 2.5)) == pytest.approx(0.5, rel=1e-14)
    assert opt.clip_gradient_norm([], 2.5) == 1
    gen_backend(batch_size=5)
    assert float(opt.clip_gradient_norm(entries, 0.5)) == pytest.approx(0.5, rel=1e-14)
    grad = torch.tensor([-3.0, 0.5, math.nan, 7.0])
    for bound in (2, -2.0):
        torch.testing.assert_close(
            opt.clip_gradient_value(grad, bound), torch.tensor([-2, 0.5, math.nan, 2]), equal_nan=True
        )
    assert torch.equal(opt.clip_gradient_value(grad[:2], None), grad[:2])
    assert grad[0] == -3


# -- schedules -------------------------------------------------------------------------------------


class EveryOther:
    """Not one of neon's: all that is asked of a schedule is `get_learning_rate`."""

    def get_learning_rate(self, learning_rate: float, epoch: int) -> float:
        return learning_rate * (epoch % 2)


@pytest.mark.parametrize("how", ["optimize", "attach"])
def test_a_schedule_may_be_anything_that_gives_rates(how: str) -> None:
    p = nn.Parameter(torch.zeros(1))
    layer = Plain([0.0], [1.0])
    opt = GradientDescentMomentum(0.5, 0.0, schedule=EveryOther())  # type: ignore[arg-type]
    attached = opt.attach([p]) if how == "attach" else None
    for epoch, expected in enumerate((0, -0.5, -0.5, -1)):
        if attached is not None:
            attached.set_epoch(epoch)
            p.grad = torch.ones(1)
            attached.step()
        else:
            opt.optimize([layer], epoch)
        assert (p if attached is not None else layer.w).item() == expected
    assert "EveryOther" in repr(opt)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda opt: pickle.loads(pickle.dumps(opt))], ids=["deepcopy", "pickle"]
)
def test_a_schedule_in_steps_goes_on_in_a_copy(duplicate: Callable[[Any], Any]) -> None:
    layer = Plain([0.0], [1.0])
    opt = GradientDescentMomentum(1.0, 0.0, schedule=WarmupStableDecay(2, 1, 2, unit="steps"))
    for expected in (-0.5, -1.5, -2.5):
        opt.optimize([layer], 0)
        assert layer.w.item() == pytest.approx(expected)
    duplicate(opt).optimize([layer], 0)
    assert layer.w.item() == pytest.approx(-3.5)


def test_each_optimizer_of_a_mapping_follows_its_own_schedule() -> None:
    net = nn.Linear(1, 1)
    opt = MultiOptimizer(
        {
            "default": GradientDescentMomentum(1.0, 0.0, schedule=Schedule([1], 0.5)),
            "Bias": GradientDescentMomentum(2.0, 0.0, schedule=WarmupStableDecay(2, 9, 9, unit="steps")),
        }
    )
    attached = opt.attach(net)
    for how in ("optimize", "attach"):
        for epoch, (weight, bias) in enumerate([(1.0, 1.0), (0.5, 2.0)]):
            with torch.no_grad():
                net.weight.zero_(), net.bias.zero_()
            net.weight.grad, net.bias.grad = torch.ones(1, 1), torch.ones(1)
            if how == "optimize":
                opt.optimize([net], epoch)
            else:
                attached.set_epoch(epoch)
                attached.step()
            assert (net.weight.item(), net.bias.item()) == (-weight, -bias)
