"""Custom optimizers: written by hand as neon documents them, and as rules with every option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from plain_layers import Plain, random
from torch import nn

from neon.backends import gen_backend
from neon.initializers import Gaussian
from neon.layers import Affine, Bias, Linear
from neon.optimizers import (
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
    RMSProp,
    Schedule,
    get_param_list,
)
from neon.optimizers.functions import equal, maximum, norm, sign, sqrt, where
from neon.transforms import Tanh

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
