"""optimize(layer_list, epoch) and get_param_list; custom optimizers, as neon documents them and as rules."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from neon.backends import Backend, gen_backend
from neon.initializers import Gaussian
from neon.layers import LSTM, Activation, Affine, Bias, Linear
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
from neon.optimizers.functions import equal, maximum, norm, sign, sqrt, where
from neon.transforms import Tanh


@pytest.fixture(autouse=True)
def _batch_size_is_one_again() -> Iterator[None]:
    yield
    gen_backend(batch_size=1)


class Plain:
    """The least that a layer can be: one parameter, no torch module."""

    def __init__(self, values: Any, gradient: Any, dtype: torch.dtype = torch.float64) -> None:
        self.w = torch.as_tensor(values, dtype=dtype)
        self.g = None if gradient is None else torch.as_tensor(gradient, dtype=dtype)
        self.states: list[torch.Tensor] = []

    def get_params(self) -> Any:
        return (self.w, self.g), self.states


class Container:
    def __init__(self, *layers: Any) -> None:
        self.layers = list(layers)


class Pair:
    """A layer of several parameters."""

    def __init__(self, *parts: Plain) -> None:
        self.parts = parts

    def get_params(self) -> Any:
        return [part.get_params() for part in self.parts]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain(seed: int = 0) -> Plain:
    return Plain(random(3, 4, seed=seed), random(3, 4, seed=seed + 1))


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


# -- custom optimizers, the documented way ---------------------------------------------------------


class DocumentedMomentum(Optimizer):
    def __init__(
        self, learning_rate: float, momentum_coef: float, stochastic_round: bool = False, wdecay: float = 0.0,
        gradient_clip_norm: float | None = None, gradient_clip_value: float | None = None,
        name: str | None = None, schedule: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(name=name)
        self.learning_rate, self.momentum_coef = learning_rate, momentum_coef
        self.gradient_clip_norm = gradient_clip_norm
        self.gradient_clip_value = gradient_clip_value
        self.wdecay = wdecay
        self.schedule = schedule or Schedule()
        self.stochastic_round = stochastic_round

    def optimize(self, layer_list: Any, epoch: int) -> None:
        lrate = self.schedule.get_learning_rate(self.learning_rate, epoch)
        param_list = get_param_list(layer_list)
        scale_factor = self.clip_gradient_norm(param_list, self.gradient_clip_norm)
        for (param, grad), states in param_list:
            param.rounding = self.stochastic_round
            if len(states) == 0 and self.momentum_coef != 0:
                states.append(self.be.zeros_like(grad))
            grad = grad / self.be.bsz
            grad = scale_factor * self.clip_gradient_value(grad, self.gradient_clip_value)
            grad = grad + self.wdecay * param
            velocity = states[0]
            velocity[:] = self.momentum_coef * velocity - lrate * grad
            param[:] = param + velocity


class DocumentedRMSProp(Optimizer):
    def __init__(self, decay_rate: float = 0.95, learning_rate: float = 2e-3, epsilon: float = 1e-6) -> None:
        super().__init__(name="documented")
        self.state_list = None
        self.epsilon, self.decay_rate, self.learning_rate = epsilon, decay_rate, learning_rate

    def optimize(self, layer_list: Any, epoch: int) -> None:
        epsilon, decay = self.epsilon, self.decay_rate
        for (param, grad), states in get_param_list(layer_list):
            if len(states) == 0:
                states.append(self.be.zeros_like(grad))
            grad = grad / self.be.bsz
            state = states[0]
            state[:] = decay * state + self.be.square(grad) * (1.0 - decay)
            param[:] = param - (grad * self.learning_rate) / (self.be.sqrt(state + epsilon) + epsilon)


DOCUMENTED: dict[str, tuple[Callable[[], Optimizer], Callable[[], Optimizer]]] = {
    "momentum": (lambda: DocumentedMomentum(0.1, 0.9), lambda: GradientDescentMomentum(0.1, 0.9)),
    "clip by norm, decay, schedule": (
        lambda: DocumentedMomentum(0.1, 0.9, gradient_clip_norm=0.5, wdecay=0.1, schedule=Schedule([1], 0.5)),
        lambda: GradientDescentMomentum(0.1, 0.9, gradient_clip_norm=0.5, wdecay=0.1, schedule=Schedule([1], 0.5)),
    ),
    "clip by value": (
        lambda: DocumentedMomentum(0.1, 0.9, gradient_clip_value=0.05, stochastic_round=True),
        lambda: GradientDescentMomentum(0.1, 0.9, gradient_clip_value=0.05),
    ),
    "rmsprop": (DocumentedRMSProp, RMSProp),
}


def network() -> list[Any]:
    torch.manual_seed(1)
    return [
        Affine(4, Gaussian(scale=0.5), activation=Tanh()),
        [Linear(3, Gaussian(scale=0.5), name="top"), Bias(Gaussian())],
    ]


def train(layers: list[Any], opt: Optimizer, steps: int = 4) -> list[torch.Tensor]:
    modules = nn.Sequential(layers[0], *layers[1]).double()
    gen_backend(batch_size=8)
    for step in range(steps):
        modules.zero_grad()
        modules(random(8, 5, seed=step)).square().sum().backward()
        opt.optimize(layers, step // 2)
    return [p.detach().clone() for p in modules.parameters()]


@pytest.mark.parametrize("title", DOCUMENTED)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a MultiOptimizer"])
def test_optimizers_written_by_hand_train_as_neons_do(title: str, inside: bool) -> None:
    by_hand, neons = (make() for make in DOCUMENTED[title])
    if inside:
        by_hand = MultiOptimizer({"default": by_hand})
    for found, expected in zip(train(network(), by_hand), train(network(), neons), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_be_has_torchs_functions_and_only_those() -> None:
    be = Optimizer().be
    x = torch.tensor([4.0, 9.0])
    assert be.sqrt(x).tolist() == [2, 3]
    assert be.square(x).tolist() == [16, 81]
    assert be.zeros_like(x).tolist() == [0, 0]
    assert be.maximum(x, be.zeros_like(x) + 5).tolist() == [5, 9]
    with pytest.raises(AttributeError, match="squareroot"):
        _ = be.squareroot


# -- custom optimizers as rules --------------------------------------------------------------------


class SignDescent(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any = 0.01) -> Any:
        return w - lr * sign(g)


class Growing(Optimizer):
    """States that do not start at zero."""

    @staticmethod
    def rule(w: Any, g: Any, scale: Any = 0.5, count: Any = 0, *, lr: Any, base: Any = 2) -> Any:
        return w - lr * scale * g, base * scale, count + 1


class Switched(Optimizer):
    """A choice by a bool and by a string, numbers in tuples."""

    @staticmethod
    def rule(
        w: Any, g: Any, *, lr: Any = 1.0, signed: Any = False, form: Any = "sum", weights: Any = (1.0, 2.0)
    ) -> Any:
        first, second = weights
        step = first * g + second if form == "sum" else first * g * second
        return w - lr * (sign(step) if signed else step)


class Lars(Optimizer):
    """LARS (You et al. 2017): the rate of each tensor by the ratio of its norms."""

    @staticmethod
    def rule(w: Any, g: Any, velocity: Any, *, lr: Any = 0.1, momentum: Any = 0.9, trust: Any = 0.01) -> Any:
        size = norm(g)
        ratio = where(equal(size, 0.0), 1.0, trust * norm(w) / size)
        velocity = momentum * velocity - lr * ratio * g
        return w + velocity, velocity


class Counting(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any = 1.0, step: Any, epoch: Any) -> Any:
        return w - lr * (step + 100 * epoch) * g


def test_a_rule_takes_its_numbers_and_every_option() -> None:
    layer = Plain([1.0, 1.0], [3.0, -4.0])
    SignDescent(lr=0.25).optimize([layer], 0)
    assert layer.w.tolist() == [0.75, 1.25]
    SignDescent(lr=0.25, schedule=Schedule([1], 0.5), wdecay=4.0, param_clip_value=1.0).optimize([layer], 1)
    assert layer.w.tolist() == [0.625, 1.0]  # −4 + 4 · 1.25 = 1 > 0, then 1.125 is cut to 1
    assert repr(SignDescent(lr=0.5, gradient_clip_norm=2.0)) == "SignDescent(lr=0.5, gradient_clip_norm=2.0)"


def test_states_start_at_their_defaults() -> None:
    layer, opt = Plain([0.0], [1.0]), Growing(lr=1.0)
    for expected in (-0.5, -1.5, -3.5):
        opt.optimize([layer], 0)
        assert layer.w.item() == expected
    assert [s.item() for s in layer.states] == [4, 3]
    attached = Growing(lr=1.0, base=3).attach([p := nn.Parameter(torch.zeros(2))])
    p.grad = torch.ones(2)
    attached.step()
    attached.step()
    assert p.tolist() == [-2, -2]
    assert set(attached.state[p]) == {"step", "scale", "count"}


def test_bools_and_strings_choose_and_tuples_are_numbers() -> None:
    def moved(**values: Any) -> float:
        layer = Plain([0.0], [3.0])
        Switched(**values).optimize([layer], 0)
        return -layer.w.item()

    assert moved() == 5
    assert moved(weights=(2.0, 4.0)) == 10
    assert moved(form="product", weights=[2.0, 4.0]) == 24
    assert moved(signed=True) == 1
    p = nn.Parameter(torch.zeros(1))
    attached = Switched().attach([p])
    for change, expected in (({}, -5), ({"signed": True}, -6), ({"signed": False, "weights": (0.0, 1.0)}, -7)):
        attached.param_groups[0].update(change)
        p.grad = torch.full((1,), 3.0)
        attached.step()
        assert p.item() == expected


@pytest.mark.parametrize("bound", [None, 0.5])
def test_a_rule_may_use_norms_of_its_tensor(bound: float | None) -> None:
    layers = [
        Plain(random(4, 3, seed=1), random(4, 3, seed=2)),
        Plain(random(5, seed=3), [0.0] * 5),
        Plain([2.0], [-3.0]),
    ]
    weights = [layer.w.clone() for layer in layers]
    grads = [layer.g / 2 for layer in layers if layer.g is not None]
    velocities = [torch.zeros_like(w) for w in weights]
    if bound is not None:
        total = torch.cat([g.flatten() for g in grads]).norm()
        grads = [g * (bound / total) for g in grads]
    opt = Lars(gradient_clip_norm=bound)
    gen_backend(batch_size=2)
    for _ in range(3):
        opt.optimize(layers, 0)
        for w, g, v in zip(weights, grads, velocities, strict=True):
            ratio = 0.01 * w.norm() / g.norm() if g.norm() > 0 else 1.0
            v.copy_(0.9 * v - 0.1 * ratio * g)
            w += v
    torch.testing.assert_close([layer.w for layer in layers], weights, rtol=1e-13, atol=1e-15)


def test_a_rule_may_ask_for_step_and_epoch() -> None:
    layer, opt = Plain([0.0], [1.0]), Counting()
    for epoch in (0, 0, 2):
        opt.optimize([layer], epoch)
    assert layer.w.item() == -(1 + 2 + 203)


def test_rules_in_a_multioptimizer_and_beside_options() -> None:
    torch_layer = nn.Linear(2, 2).double()
    torch_layer.weight.grad, torch_layer.bias.grad = torch.ones(2, 2).double(), torch.ones(2).double()
    before = torch_layer.weight.detach().clone(), torch_layer.bias.detach().clone()
    opt = MultiOptimizer({"default": SignDescent(lr=0.5), "Bias": Growing(lr=1.0, gradient_clip_value=0.25)})
    opt.optimize([torch_layer], 0)
    torch.testing.assert_close(torch_layer.weight, before[0] - 0.5)
    torch.testing.assert_close(torch_layer.bias, before[1] - 0.125)


def test_a_rule_is_a_function_of_floats_and_of_tensors_too() -> None:
    assert SignDescent.rule(1.0, -2.0, lr=0.5) == 1.5
    assert SignDescent.rule(torch.ones(2), torch.tensor([1.0, 0.0]), lr=0.5).tolist() == [0.5, 1]
    assert Lars.rule(3.0, 4.0, 0.0, lr=1.0, momentum=0.5, trust=0.5)[0] == pytest.approx(1.5)
    w, _ = Lars.rule(torch.ones(4), torch.ones(4), torch.zeros(4), lr=1.0, momentum=0.5, trust=0.5)
    assert w.tolist() == [0.5] * 4
    assert where(maximum(1.0, 2.0) > 1.5, sqrt(4.0), 0.0) == 2


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
