"""Layers over sequences against equations written out in float64, and what they carry from minibatch to minibatch."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neon.initializers import Constant, Gaussian, GlorotUniform, Orthonormal, Uniform
from neon.layers import GRU, LSTM, Recurrent, RecurrentLast, RecurrentMean, RecurrentSum, Sequential
from neon.optimizers import GradientDescentMomentum
from neon.transforms import Explin, Identity, Logistic, Rectlin, Rectlinclip, Tanh

INIT = Uniform(-0.8, 0.8)
SAMPLES, STEPS, INPUTS, UNITS = 3, 5, 4, 2
NAMES = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
Function = Callable[[Tensor], Tensor]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def sequence(samples: int = SAMPLES) -> Tensor:
    return torch.randn(samples, STEPS, INPUTS)


def ready(layer: Any) -> Any:
    """A layer whose biases are not 0, so that each of them counts."""
    layer.configure((INPUTS, STEPS))
    with torch.no_grad():
        layer.bias_ih_l0.uniform_(-0.5, 0.5)
        layer.bias_hh_l0.uniform_(-0.5, 0.5)
    return layer


def by_gates(layer: Any, gates: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """W, U and b of each gate, in float64."""
    w, u, b, c = (getattr(layer, name).detach().double().chunk(gates) for name in NAMES)
    return [(w[i], u[i], b[i] + c[i]) for i in range(gates)]


def recurrent_by_hand(layer: Any, x: Tensor, f: Function) -> Tensor:
    ((w, u, b),) = by_gates(layer, 1)
    h = torch.zeros(len(x), UNITS, dtype=torch.float64)
    steps = []
    for t in range(x.shape[1]):
        h = f(x[:, t] @ w.T + h @ u.T + b)
        steps.append(h)
    return torch.stack(steps, 1)


def lstm_by_hand(layer: Any, x: Tensor, phi: Function, sigma: Function) -> Tensor:
    gates = by_gates(layer, 4)
    h = c = torch.zeros(len(x), UNITS, dtype=torch.float64)
    steps = []
    for t in range(x.shape[1]):
        i, f, g, o = (x[:, t] @ w.T + h @ u.T + b for w, u, b in gates)
        c = sigma(f) * c + sigma(i) * phi(g)
        h = sigma(o) * phi(c)
        steps.append(h)
    return torch.stack(steps, 1)


def gru_by_hand(layer: Any, x: Tensor, phi: Function, sigma: Function) -> Tensor:
    reset, update, candidate = by_gates(layer, 3)
    h = torch.zeros(len(x), UNITS, dtype=torch.float64)
    steps = []
    for t in range(x.shape[1]):
        r, z = (sigma(x[:, t] @ w.T + h @ u.T + b) for w, u, b in (reset, update))
        w, u, b = candidate
        h = (1 - z) * h + z * phi(x[:, t] @ w.T + (r * h) @ u.T + b)
        steps.append(h)
    return torch.stack(steps, 1)


def half(x: Tensor) -> Tensor:
    return x / 2


def logistic(x: Tensor) -> Tensor:
    return 1 / (1 + (-x).exp())


# layer, the equation, its functions
BY_HAND = [
    (Recurrent(UNITS, INIT), recurrent_by_hand, [torch.tanh]),
    (Recurrent(UNITS, INIT, activation=Rectlin()), recurrent_by_hand, [lambda x: x.clamp_min(0)]),
    (Recurrent(UNITS, INIT, None, Logistic()), recurrent_by_hand, [logistic]),
    (Recurrent(UNITS, INIT, activation=Rectlinclip(xcut=0.5)), recurrent_by_hand, [lambda x: x.clamp(0, 0.5)]),
    (Recurrent(UNITS, INIT, activation=half), recurrent_by_hand, [half]),
    (LSTM(UNITS, INIT), lstm_by_hand, [torch.tanh, logistic]),
    (LSTM(UNITS, INIT, activation=Logistic(), gate_activation=Tanh()), lstm_by_hand, [logistic, torch.tanh]),
    (LSTM(UNITS, INIT, None, Identity(), half), lstm_by_hand, [lambda x: x, half]),
    (GRU(UNITS, INIT), gru_by_hand, [torch.tanh, logistic]),
    (GRU(UNITS, INIT, activation=Logistic(), gate_activation=Tanh()), gru_by_hand, [logistic, torch.tanh]),
    (GRU(UNITS, INIT, None, Explin(), half), gru_by_hand, [nn.ELU(), half]),
]


@pytest.mark.parametrize(
    ("layer", "by_hand", "functions"), BY_HAND, ids=[f"{type(row[0]).__name__}-{i}" for i, row in enumerate(BY_HAND)]
)
def test_values_are_those_of_the_equation(
    layer: Any, by_hand: Callable[..., Tensor], functions: list[Function]
) -> None:
    layer, x = ready(copy.deepcopy(layer)), sequence()
    y = layer(x)
    torch.testing.assert_close(y.double(), by_hand(layer, x.double(), *functions), rtol=1e-6, atol=1e-6)


KERNELS = [Recurrent(UNITS, INIT), Recurrent(UNITS, INIT, activation=Rectlin(name="relu")), LSTM(UNITS, INIT)]


@pytest.mark.parametrize("layer", KERNELS, ids=repr)
def test_torchs_kernel_and_the_loop_give_the_same_values_and_gradients(layer: Any) -> None:
    kernel = ready(copy.deepcopy(layer))
    loop = copy.deepcopy(kernel)
    assert kernel.has_kernel
    loop.has_kernel = False
    x, found = sequence(), []
    for one in (kernel, loop):
        inputs = x.clone().requires_grad_()
        y = one(inputs)
        y.square().sum().backward()
        found.append([y, inputs.grad, *(getattr(one, name).grad for name in NAMES)])
    for of_kernel, of_loop in zip(*found, strict=True):
        torch.testing.assert_close(of_kernel, of_loop, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer", [GRU(UNITS, INIT), LSTM(UNITS, INIT, activation=Logistic())], ids=repr)
def test_gradients_of_the_loop_are_those_of_differences(layer: Any) -> None:
    layer = ready(copy.deepcopy(layer)).double()
    x = sequence().double().requires_grad_()
    weights = [getattr(layer, name) for name in NAMES]
    assert torch.autograd.gradcheck(lambda x, *_: layer(x), (x, *weights))


def test_a_gru_is_not_torchs() -> None:
    layer, x = ready(GRU(UNITS, INIT)), sequence()
    torchs = nn.GRU(INPUTS, UNITS, batch_first=True)
    torchs.load_state_dict(layer.state_dict())
    assert (layer(x) - torchs(x)[0]).abs().max() > 0.1


def test_activations_that_torch_has_no_kernel_for_are_not_taken_for_those_that_it_has() -> None:
    assert not Recurrent(2, INIT, activation=Rectlin(0.1)).has_kernel
    assert not LSTM(2, INIT, gate_activation=Rectlin()).has_kernel
    assert LSTM(2, INIT, activation=Tanh("g"), gate_activation=Logistic(shortcut=True)).has_kernel


def test_arguments_come_in_the_documented_order() -> None:
    inner = Orthonormal()
    for kind in (LSTM, GRU):
        layer: Any = kind(2, INIT, inner, Logistic(), Tanh(), False, "cells")
        assert (layer.init_inner, layer.activation, layer.gate_activation) == (inner, Logistic(), Tanh())
        assert (layer.reset_cells, layer.name) == (False, "cells")
    recurrent = Recurrent(2, INIT, inner, Logistic(), False, "cells")
    assert (recurrent.activation, recurrent.reset_cells, recurrent.name) == (Logistic(), False, "cells")


def test_each_gate_of_a_gru_is_initialized_as_a_matrix_of_its_own() -> None:
    layer: Any = GRU(100, GlorotUniform(), init_inner=Orthonormal(scale=1.0))
    layer(torch.randn(1, 1, 50))
    for gate in layer.weight_ih_l0.chunk(3):
        assert gate.abs().max().item() == pytest.approx((6 / 150) ** 0.5, rel=0.01)
    for gate in layer.weight_hh_l0.chunk(3):
        torch.testing.assert_close(gate @ gate.T, torch.eye(100), rtol=0, atol=1e-5)
    assert torch.count_nonzero(layer.bias_ih_l0) == torch.count_nonzero(layer.bias_hh_l0) == 0


def test_images_are_steps_of_their_columns() -> None:
    layer, images = GRU(UNITS, INIT), torch.randn(SAMPLES, 2, 3, STEPS)
    columns = torch.stack([images[..., column].reshape(SAMPLES, 6) for column in range(STEPS)], 1)
    assert torch.equal(layer(images), layer(columns))
    assert torch.equal(RecurrentLast()(images), images[..., -1].reshape(SAMPLES, 6))


def test_outputs_of_a_sequence() -> None:
    x = torch.tensor([[[1.0, 2.0], [3.0, 6.0]]])
    assert RecurrentSum()(x).tolist() == [[4, 8]]
    assert RecurrentMean()(x).tolist() == [[2, 4]]
    assert RecurrentLast()(x).tolist() == [[3, 6]]


def carrying() -> list[Any]:
    """One layer of each kind, of the loop and of the kernel, that does not reset its cells."""
    return [
        ready(Recurrent(UNITS, INIT, reset_cells=False)),
        ready(Recurrent(UNITS, INIT, activation=Logistic(), reset_cells=False)),
        ready(LSTM(UNITS, INIT, reset_cells=False)),
        ready(LSTM(UNITS, INIT, activation=Logistic(), reset_cells=False)),
        ready(GRU(UNITS, INIT, reset_cells=False)),
    ]


CARRYING = pytest.mark.parametrize("which", range(5))


@CARRYING
def test_cells_are_carried_into_the_next_minibatch_of_the_same_size(which: int) -> None:
    layer = carrying()[which]
    x = torch.randn(SAMPLES, 2 * STEPS, INPUTS)
    whole = layer(x)
    layer.forget()
    halves = torch.cat([layer(x[:, :STEPS]), layer(x[:, STEPS:])], 1)
    torch.testing.assert_close(halves, whole, rtol=1e-6, atol=1e-6)
    fresh = layer(x[:2])  # another size starts from zeros
    torch.testing.assert_close(fresh, whole[:2], rtol=1e-6, atol=1e-6)
    assert not layer.state_dict().keys() - set(NAMES)


@CARRYING
def test_no_gradient_flows_into_the_minibatch_before(which: int) -> None:
    layer = carrying()[which]
    first, second = sequence().requires_grad_(), sequence().requires_grad_()
    layer(first)
    layer(second).sum().backward()
    assert first.grad is None
    assert second.grad is not None


def test_by_default_each_minibatch_starts_from_zeros() -> None:
    for layer in (Recurrent(UNITS, INIT), LSTM(UNITS, INIT), GRU(UNITS, INIT)):
        x = sequence()
        assert torch.equal(layer(x), layer(x))
        assert layer.carried == {}


@CARRYING
def test_training_and_evaluation_carry_apart_and_two_evaluations_agree(which: int) -> None:
    layer, x = carrying()[which], sequence()
    layer(x)
    second = copy.deepcopy(layer)(x)
    layer.eval()
    evaluations = [layer(x), layer(x)]
    assert not torch.equal(*evaluations)
    layer.eval()
    assert torch.equal(layer(x), evaluations[0])
    layer.train().eval()
    assert torch.equal(layer(x), evaluations[0])
    assert torch.equal(layer.train()(x), second)  # training goes on where it was


@CARRYING
def test_copies_carry_on_by_themselves(which: int) -> None:
    layer, x = carrying()[which], sequence()
    layer(x)
    copies = [copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    expected = layer(x)
    for one in copies:
        assert torch.equal(one(x), expected)
    assert not torch.equal(layer(x), expected)


@CARRYING
def test_another_dtype_starts_anew(which: int) -> None:
    layer, x = carrying()[which], sequence()
    first = layer(x)
    again = layer.double()(x.double())
    torch.testing.assert_close(again, first.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("which", [0, 1, 3, 4])  # torch's own LSTM has no kernel of few bits on every processor
def test_cells_are_carried_under_autocast(which: int) -> None:
    layer, x = carrying()[which], sequence()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        first, second = layer(x), layer(x)
    assert not torch.equal(first, second)
    assert {state.dtype for state in layer.carried[True]} == {torch.float32}


@CARRYING
def test_cells_that_inference_mode_left_go_on_under_autograd(which: int) -> None:
    layer, x = carrying()[which], sequence()
    first = layer(x)
    layer.forget()
    with torch.inference_mode():
        layer(x)
    second = layer(x)
    assert not torch.equal(first, second)
    second.sum().backward()
    assert layer.weight_hh_l0.grad.isfinite().all()


def test_configuring_neither_carries_nor_forgets() -> None:
    layer, x = ready(LSTM(UNITS, INIT, reset_cells=False)), torch.randn(1, STEPS, INPUTS)
    layer.eval()
    layer(x)
    expected = copy.deepcopy(layer)(x)
    Sequential([layer]).configure((INPUTS, STEPS))
    assert torch.equal(layer(x), expected)


def test_a_gru_learns_to_tell_the_first_step() -> None:
    network = Sequential([GRU(8, Gaussian(scale=0.3), reset_cells=False), RecurrentLast()])
    optimizer = GradientDescentMomentum(0.5, 0.9)
    optimizer.be.bsz = 64
    x = torch.randn(64, 4, 1)
    errors = []
    for _ in range(60):
        network.zero_grad()
        network.layers[0].forget()  # type: ignore[operator]
        error = (network(x)[:, 0] - x[:, 0, 0].tanh()).square().sum()
        error.backward()
        optimizer.optimize(list(network.layers), 0)
        errors.append(error.item())
    optimizer.be.bsz = 1
    assert errors[-1] < errors[0] / 20


@pytest.mark.parametrize("kind", [Recurrent, LSTM, GRU])
def test_units_may_be_numpys(kind: Any) -> None:
    assert kind(np.int64(UNITS), INIT)(sequence()).shape == (SAMPLES, STEPS, UNITS)


def test_one_constant_serves_all_gates() -> None:
    layer: Any = LSTM(UNITS, Constant(0.5))
    layer.configure((INPUTS, STEPS))
    assert layer.weight_ih_l0.unique().tolist() == layer.weight_hh_l0.unique().tolist() == [0.5]
