"""What the documented framework's tests of optimizers and schedules check, and the calls in its documentation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import neon.layers
import neon.layers.layer
from neon.initializers import Constant, Gaussian
from neon.layers import Affine, Linear
from neon.optimizers import (
    Adadelta,
    Adagrad,
    Adam,
    ExpSchedule,
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
    PolySchedule,
    PowerSchedule,
    RMSProp,
    RMSprop,
    Schedule,
    ShiftAdaMax,
    ShiftSchedule,
    StepSchedule,
    get_param_list,
)
from neon.transforms import Logistic, Rectlin, Softmax, Tanh

Array = np.ndarray
pytestmark = pytest.mark.usefixtures("batches_of_128")

layers_module: Any = neon.layers
layer_module: Any = neon.layers.layer
SHAPE, BATCH = (200, 128), 128
MOST = 0.5  # what parameters are clipped at


class Dummy:
    """A layer that gives one entry of a parameter list."""

    def __init__(self, entry: Any) -> None:
        self.entry = entry

    def get_params(self) -> Any:
        return self.entry


def wrap(values: Array) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


# -- one step, and twenty of Nesterov's ------------------------------------------------------------
# Each equation: the new weight; it writes the new states into `s`, of which the last of three is scratch.


def momentum(w: Array, g: Array, s: list[Array]) -> Array:
    s[0][:] = 0.9 * s[0] - 0.1 * (g + 0.005 * w)
    return w + s[0]


def nesterov(w: Array, g: Array, s: list[Array]) -> Array:
    s[0][:] = 0.9 * s[0] - 0.1 * (g + 0.005 * w)
    return w + 0.9 * s[0] - 0.1 * (g + 0.005 * w)


def rmsprop(w: Array, g: Array, s: list[Array]) -> Array:
    s[0][:] = 0.95 * s[0] + 0.05 * g**2
    return w - 2e-3 * g / (np.sqrt(s[0] + 1e-6) + 1e-6)


def adadelta(w: Array, g: Array, s: list[Array]) -> Array:
    s[0][:] = 0.95 * s[0] + 0.05 * g**2
    delta = np.sqrt((s[1] + 1e-6) / (s[0] + 1e-6)) * g
    s[1][:] = 0.95 * s[1] + 0.05 * delta**2
    return w - delta


def adagrad(w: Array, g: Array, s: list[Array]) -> Array:
    s[0][:] = s[0] + g**2
    return w - 0.01 * g / np.sqrt(s[0] + 1e-6)


def adam(w: Array, g: Array, s: list[Array]) -> Array:
    """The first update. The framework has ε beside √v, not beside √v̂: no digit of a float32 shows it here."""
    s[0][:] = 0.9 * s[0] + 0.1 * g
    s[1][:] = 0.999 * s[1] + 0.001 * g**2
    return w - 0.001 * np.sqrt(1 - 0.999) / (1 - 0.9) * s[0] / (np.sqrt(s[1]) + 1e-8)


def shift_adamax(w: Array, g: Array, s: list[Array]) -> Array:
    """In epoch 1."""

    def power_of_two(x: Array) -> Array:
        return np.sign(x) * np.exp2(np.rint(np.log2(np.abs(x))))

    s[0][:] = 0.9 * s[0] + 0.1 * g
    s[1][:] = np.maximum(0.999 * s[1], np.abs(g))
    rate = power_of_two(np.asarray(0.002 / (1 - 0.9**2)))
    return np.clip(w - s[0] * power_of_two(1 / (s[1] + 1e-8)) * rate, -1, 1)


DESCENT = {"learning_rate": 0.1, "momentum_coef": 0.9, "wdecay": 0.005}
# equation: how its optimizer is made, how many tensors are in the list of states, how many steps, how close
TESTS: dict[Callable[..., Array], tuple[Callable[..., Optimizer], int, int, float]] = {
    momentum: (lambda **more: GradientDescentMomentum(**DESCENT, **more), 1, 1, 1e-7),
    nesterov: (lambda **more: GradientDescentMomentum(**DESCENT, nesterov=True, **more), 1, 20, 1e-6),
    rmsprop: (RMSProp, 1, 1, 1e-7),
    adadelta: (Adadelta, 3, 1, 1e-7),
    adagrad: (Adagrad, 1, 1, 1e-7),
    adam: (Adam, 2, 1, 1e-7),
    shift_adamax: (ShiftAdaMax, 3, 1, 2e-7),
}


@pytest.mark.parametrize("clipped", [False, True])
@pytest.mark.parametrize("equation", TESTS)
def test_steps_from_states_that_are_given(equation: Callable[..., Array], clipped: bool) -> None:
    make, count, steps, tolerance = TESTS[equation]
    rng = np.random.default_rng(7)
    w, states = rng.random(SHAPE), [0.01 * rng.random(SHAPE) for _ in range(count)]
    param, held = wrap(w), [wrap(state) for state in states]
    tensors, last = list(held), held[-1].clone()
    opt = make(param_clip_value=MOST) if clipped else make()
    for _ in range(steps):
        g = 0.01 * rng.random(SHAPE)
        opt.optimize([Dummy(((param, wrap(g)), held))], epoch=1)
        w = equation(w, g / BATCH, states)
        w = np.clip(w, -MOST, MOST) if clipped else w
        assert np.abs(param.numpy() - w).max() <= tolerance
    assert all(now is before for now, before in zip(held, tensors, strict=True))
    for state, wanted in zip(held[:2], states[:2], strict=True):
        np.testing.assert_allclose(state.numpy(), wanted, rtol=0, atol=tolerance)
    assert count < 3 or torch.equal(held[2], last)


def test_a_multi_optimizer_tells_which_layers_each_optimizer_has() -> None:
    opt_gdm = GradientDescentMomentum(learning_rate=0.001, momentum_coef=0.9, wdecay=0.005)
    opt_ada, opt_adam, opt_rms, opt_rms_1 = Adadelta(), Adam(), RMSProp(), RMSProp(gradient_clip_value=5)
    init = Gaussian(scale=0.01)
    made: list[Any] = [
        layers_module.Conv((11, 11, 64), strides=4, padding=3, init=init, bias=Constant(0), activation=Rectlin()),
        Affine(nout=64, init=init, bias=Constant(1), activation=Rectlin()),
        layers_module.LSTM(output_size=40, init=init, activation=Logistic(), gate_activation=Tanh()),
        layers_module.GRU(output_size=20, init=init, activation=Logistic(), gate_activation=Tanh()),
    ]
    layers = [layer for part in made for layer in (part if isinstance(part, list) else [part])]
    for layer in layers:
        layer.configure(in_obj=(16, 28, 28))
        layer.allocate()
    mapping = {"Bias": opt_ada, "Convolution": opt_adam, "Convolution_bias": opt_adam, "Linear": opt_rms}
    opt = MultiOptimizer({"default": opt_gdm, **mapping, "LSTM": opt_rms_1, "GRU": opt_rms_1})
    with pytest.warns(UserWarning, match="no layer fits the key"):  # each call has a part of the layers
        opt.optimize([layer for layer in layers[:-2] if isinstance(layer, layer_module.ParameterLayer)], 0)
    assert opt.map_list is not None
    assert type(opt.map_list[opt_adam][0]).__name__ == "Convolution"
    assert type(opt.map_list[opt_rms][0]).__name__ == "Linear"
    opt.optimize([layer for layer in layers[-2:] if isinstance(layer, layer_module.ParameterLayer)], 0)
    assert [type(layer).__name__ for layer in opt.map_list[opt_rms_1]] == ["LSTM", "GRU"]


# -- schedules: rates by epoch, from the one in brackets -------------------------------------------

RATES: dict[str, tuple[Schedule, float, list[float]]] = {
    "constant": (Schedule(), 0.1, [0.1] * 10),
    "every two epochs": (Schedule(step_config=2, change=0.5), 0.1, [0.1 * 0.5 ** (e // 2) for e in range(10)]),
    "at listed epochs": (Schedule(step_config=[2, 3], change=0.1), 0.1, [0.1, 0.1, 0.01, 0.001, 0.001]),
    "steps": (
        StepSchedule(step_config=[1, 4, 5], change=[0.1, 0.3, 0.4]),
        1.0,
        [1.0, 0.1, 0.1, 0.1, 0.3, 0.4, 0.4, 0.4, 0.4],
    ),
    "power": (PowerSchedule(step_config=2, change=0.5), 1.0, [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]),
    "exponential": (ExpSchedule(0.01), 0.1, [0.1 / (1 + 0.01 * e) for e in range(10)]),
    "shift": (ShiftSchedule(1), 0.1, [0.1 / 2**e for e in range(10)]),
    # of the documentation
    "docs: constant": (Schedule(), 0.01, [0.01] * 10),
    "docs: set": (Schedule(step_config=[2, 6], change=[0.6, 0.4]), 1.0, [1.0] * 2 + [0.6] * 4 + [0.4] * 4),
    "docs: halved": (Schedule(step_config=[2, 6], change=0.5), 1.0, [1.0] * 2 + [0.5] * 4 + [0.25] * 4),
    "docs: power": (Schedule(step_config=2, change=0.5), 0.1, [0.1, 0.1, 0.05, 0.05, 0.025, 0.025, 0.0125, 0.0125]),
    "docs: blue": (ExpSchedule(decay=0.1), 1.0, [1 / (1 + 0.1 * e) for e in range(10)]),
    "docs: green": (ExpSchedule(decay=0.3), 1.0, [1 / (1 + 0.3 * e) for e in range(10)]),
    "docs: red": (ExpSchedule(decay=0.7), 1.0, [1 / (1 + 0.7 * e) for e in range(10)]),
    "docs: polynomial": (PolySchedule(total_epochs=10, power=0.7), 1.0, [(1 - e / 10) ** 0.7 for e in range(10)]),
}


@pytest.mark.parametrize("title", RATES)
def test_rates_of_schedules(title: str) -> None:
    schedule, first, rates = RATES[title]
    for epoch, rate in enumerate(rates):
        for _ in range(2):  # asking twice changes nothing
            found = schedule.get_learning_rate(learning_rate=first, epoch=epoch)
            assert found == pytest.approx(rate, rel=1e-14)
    # and an optimizer steps by them
    w, opt = wrap(np.zeros(1)), GradientDescentMomentum(first, 0.0, schedule=schedule)
    for epoch in range(len(rates)):
        opt.optimize([Dummy(((w, wrap(np.full(1, BATCH))), []))], epoch)
    assert w.item() == pytest.approx(-sum(rates), rel=1e-6)


# -- calls in the documentation --------------------------------------------------------------------

CALLS: dict[str, tuple[Callable[[], Optimizer], Callable[[float], float]]] = {
    # what a mean gradient of 20 does to a weight of 1 in the first step
    "descent": (lambda: GradientDescentMomentum(0.01, 0.9, gradient_clip_value=5), lambda g: 1 - 0.01 * 5),
    "rmsprop": (
        lambda: RMSProp(decay_rate=0.95, learning_rate=2e-3),
        lambda g: 1 - 2e-3 * g / (np.sqrt(0.05 * g**2 + 1e-6) + 1e-6),
    ),
    "adagrad": (
        lambda: Adagrad(learning_rate=0.01, epsilon=1e-6),
        lambda g: 1 - 0.01 * g / np.sqrt(g**2 + 1e-6),
    ),
    "adadelta": (
        lambda: Adadelta(decay=0.95, epsilon=1e-6),
        lambda g: 1 - np.sqrt(1e-6 / (0.05 * g**2 + 1e-6)) * g,
    ),
    "adam": (lambda: Adam(learning_rate=0.001, beta_1=0.9, beta_2=0.999), lambda g: 1 - 0.001 * g / (g + 1e-8)),
    "constant rate": (lambda: GradientDescentMomentum(0.01, 0.9, schedule=Schedule()), lambda g: 1 - 0.01 * g),
}


@pytest.mark.parametrize("title", CALLS)
def test_calls_in_the_documentation(title: str) -> None:
    make, step = CALLS[title]
    param = torch.ones(5, dtype=torch.float64)
    make().optimize([Dummy(((param, torch.full_like(param, 20.0 * BATCH)), []))], 0)
    np.testing.assert_allclose(param.numpy(), step(20.0), rtol=0, atol=1e-14)


def test_the_documented_mapping() -> None:
    optimizer_A = GradientDescentMomentum(learning_rate=0.01, momentum_coef=0.9)  # noqa: N806
    optimizer_B = GradientDescentMomentum(learning_rate=0.05, momentum_coef=0.9)  # noqa: N806
    optimizer_C = RMSprop(learning_rate=2e-3, decay_rate=0.95)  # noqa: N806
    layers: list[Any] = []
    layers.append(Linear(nout=100, init=Gaussian(), name="layer_one"))
    layers.append(Linear(nout=50, init=Gaussian(), name="layer_two"))
    layers.append(Affine(nout=5, init=Gaussian(), activation=Softmax()))
    mapping = {"default": optimizer_A, "Linear": optimizer_B, "layer_two": optimizer_C}
    opt = MultiOptimizer(mapping)
    assert opt.map_list is None
    torch.nn.Sequential(*layers)(torch.ones(BATCH, 3))[:, 0].sum().backward()
    opt.optimize(layers, 0)
    linear, bias, softmax = layers[2].layers
    assert opt.map_list == {optimizer_A: [bias], optimizer_B: [layers[0], linear], optimizer_C: [layers[1]]}
    assert not any(softmax in found for found in (opt.map_list or {}).values())  # it has no parameters


class MyOptimizer(Optimizer):
    """The documented skeleton, with momentum as its equations; as there, its constructor calls no other."""

    def __init__(
        self,
        myparam_1: float,
        stochastic_round: bool = False,
        gradient_clip_value: float | None = None,
        gradient_clip_norm: float | None = None,
    ) -> None:
        self.myparam_1 = myparam_1
        self.stochastic_round = stochastic_round
        self.gradient_clip_value = gradient_clip_value
        self.gradient_clip_norm = gradient_clip_norm

    def optimize(self, layer_list: Any, epoch: int) -> None:
        param_list: Any = get_param_list(layer_list)
        scale_factor = self.clip_gradient_norm(param_list, self.gradient_clip_norm)
        for (param, grad), states in param_list:
            param.rounding = self.stochastic_round
            if len(states) == 0:
                states.append(self.be.zeros_like(grad))
            grad = grad / self.be.bsz
            grad = self.clip_value(scale_factor * grad, self.gradient_clip_value)
            states[0][:] = 0.9 * states[0] - self.myparam_1 * grad
            delta_param = states[0]
            param[:] = self.clip_value(param + delta_param, MOST)


@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a MultiOptimizer"])
def test_the_documented_skeleton(inside: bool) -> None:
    rng = np.random.default_rng(11)
    weights = [rng.standard_normal(4), rng.standard_normal((2, 3))]
    params = [torch.tensor(w) for w in weights]
    velocities, held = [np.zeros_like(w) for w in weights], [list[torch.Tensor](), []]
    mine = MyOptimizer(0.1, gradient_clip_value=0.4, gradient_clip_norm=1.5)
    opt = MultiOptimizer({"default": mine}) if inside else mine
    for epoch in range(5):
        grads = [rng.standard_normal(w.shape) for w in weights]
        opt.optimize(
            [Dummy(((p, BATCH * torch.tensor(g)), s)) for p, g, s in zip(params, grads, held, strict=True)], epoch
        )
        scale = min(1, 1.5 / np.sqrt(sum((g**2).sum() for g in grads)))
        for place, g in enumerate(grads):
            velocities[place] = 0.9 * velocities[place] - 0.1 * np.clip(scale * g, -0.4, 0.4)
            weights[place] = np.clip(weights[place] + velocities[place], -MOST, MOST)
            np.testing.assert_allclose(params[place].numpy(), weights[place], rtol=0, atol=1e-14)


def test_clip_value_by_hand() -> None:
    """None and 0 ask for no clipping, the sign of a bound says nothing, and what is given stays as it was."""
    opt, v = Optimizer(), torch.tensor([-3.0, 0.5, 7.0])
    for bound, wanted in {None: [-3, 0.5, 7], 0: [-3, 0.5, 7], 2: [-2, 0.5, 2], -2.0: [-2, 0.5, 2]}.items():
        assert opt.clip_value(v, bound).tolist() == wanted
        assert opt.clip_value(v, abs_bound=bound).tolist() == wanted
    assert v.tolist() == [-3, 0.5, 7]
    with pytest.raises(ValueError, match=r"abs_bound.*nan"):
        opt.clip_value(v, float("nan"))
