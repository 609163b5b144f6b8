"""`configure` and `allocate`: shapes before the first minibatch, and gradients before the first backward pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from neon.backends import NervanaObject, gen_backend
from neon.initializers import Constant, Gaussian, GlorotUniform
from neon.layers import (
    GRU,
    LSTM,
    Activation,
    Affine,
    BatchNorm,
    Bias,
    Conv,
    Convolution,
    Deconv,
    Dropout,
    Layer,
    Linear,
    LookupTable,
    ParameterLayer,
    Pooling,
    Recurrent,
    RecurrentLast,
    RecurrentMean,
    Reshape,
    Sequential,
)
from neon.models import Model
from neon.optimizers import Adadelta, Adam, GradientDescentMomentum, MultiOptimizer, RMSProp
from neon.transforms import Logistic, Rectlin, Softmax, Tanh

INIT = Gaussian(scale=0.1)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Dataset:
    """What a dataset shows of its samples."""

    def __init__(self, **shapes: Any) -> None:
        vars(self).update(shapes)


# layer, in_obj, in_shape, out_shape, shapes of the parameters
CONFIGURED: list[tuple[Any, Any, Any, Any, list[tuple[int, ...]]]] = [
    (Linear(4, INIT), 6, (6,), (4,), [(4, 6)]),
    (Linear(4, INIT), np.int64(6), (6,), (4,), [(4, 6)]),
    (Linear(4, INIT), [6], (6,), (4,), [(4, 6)]),
    (Linear(4, INIT), (6, 7), (6, 7), (4, 7), [(4, 6)]),
    (Linear(4, INIT), (3, 8, 9), (3, 8, 9), (4,), [(4, 216)]),
    (Linear(4, INIT), torch.zeros(5, 7, 6), (6, 7), (4, 7), [(4, 6)]),
    (Linear(4, INIT), np.zeros((5, 3, 2, 2)), (3, 2, 2), (4,), [(4, 12)]),
    (Linear(4, INIT), Dataset(shape=6), (6,), (4,), [(4, 6)]),
    (Linear(4, INIT), Dataset(shape=(3, 2, 2)), (3, 2, 2), (4,), [(4, 12)]),
    (Linear(4, INIT), Dataset(lshape=(3, 2, 2)), (3, 2, 2), (4,), [(4, 12)]),
    (Linear(4, INIT), Linear(6, INIT).configure(2), (6,), (4,), [(4, 6)]),
    (Linear(4, INIT), Affine(6, INIT).configure(2), (6,), (4,), [(4, 6)]),
    (Bias(INIT), (6, 7), (6, 7), (6, 7), [(6,)]),
    (Bias(INIT), (3, 8, 9), (3, 8, 9), (3, 8, 9), [(3,)]),
    (BatchNorm(), (3, 8, 9), (3, 8, 9), (3, 8, 9), [(3,), (3,)]),
    (Activation(Tanh()), 6, (6,), (6,), []),
    (Dropout(), (6, 7), (6, 7), (6, 7), []),
    (Reshape((2, 3, -1)), 12, (12,), (2, 3, 2), []),
    (Convolution((3, 3, 4), INIT, 2, 1), (3, 8, 9), (3, 8, 9), (4, 4, 5), [(4, 3, 3, 3)]),
    (Conv((3, 3, 4), INIT, bias=Constant()), (3, 8, 9), (3, 8, 9), (4, 6, 7), [(4, 3, 3, 3), (4,)]),
    (Deconv((3, 3, 4), INIT, 2, 1), (3, 8, 9), (3, 8, 9), (4, 15, 17), [(3, 4, 3, 3)]),
    (Pooling("all"), (3, 8, 9), (3, 8, 9), (3, 1, 1), []),
    (LookupTable(10, 3, INIT), 7, (7,), (3, 7), [(10, 3)]),
    (LookupTable(10, 3, INIT), (7, 1), (7, 1), (3, 7), [(10, 3)]),
    (LookupTable(10, 3, INIT), torch.zeros(5, 7, dtype=torch.int64), (7,), (3, 7), [(10, 3)]),
    (Recurrent(4, INIT), 6, (6,), (4, 1), [(4, 6), (4, 4), (4,), (4,)]),
    (LSTM(4, INIT), (6, 7), (6, 7), (4, 7), [(16, 6), (16, 4), (16,), (16,)]),
    (GRU(4, INIT), (3, 8, 9), (3, 8, 9), (4, 9), [(12, 24), (12, 4), (12,), (12,)]),
    (RecurrentLast(), (6, 7), (6, 7), (6,), []),
    (RecurrentMean(), (3, 8, 9), (3, 8, 9), (24,), []),
]


@pytest.mark.parametrize(
    ("layer", "in_obj", "in_shape", "out_shape", "parameters"),
    CONFIGURED,
    ids=[f"{type(row[0]).__name__}-{row[2]}-{i}" for i, row in enumerate(CONFIGURED)],
)
def test_configuring_gives_shapes_and_values(
    layer: Any, in_obj: Any, in_shape: Any, out_shape: Any, parameters: list[tuple[int, ...]]
) -> None:
    assert layer.in_shape is layer.out_shape is None
    assert layer.configure(in_obj) is layer
    assert (layer.in_shape, layer.out_shape) == (in_shape, out_shape)
    assert [tuple(parameter.shape) for parameter in layer.parameters()] == parameters
    layer.allocate()
    for parameter in layer.parameters():
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_values_are_those_that_the_first_minibatch_would_give() -> None:
    found = []
    for configured in (True, False):
        torch.manual_seed(3)
        network: Any = Sequential([Conv((3, 3, 4), GlorotUniform(), bias=INIT), Affine(5, INIT), Linear(2, INIT)])
        x = torch.ones(2, 3, 6, 6)
        if configured:
            network.configure((3, 6, 6))
        found.append(network(x))
    assert torch.equal(*found)


def test_a_sequence_of_layers_passes_shapes_on() -> None:
    network = Sequential(
        [
            Conv((3, 3, 4), INIT, padding=1, activation=Rectlin()),
            nn.MaxPool2d(2),
            Affine(10, INIT, batch_norm=True, activation=Softmax()),
        ]
    )
    assert network.configure((3, 8, 8)) is network
    assert (network.in_shape, network.out_shape) == ((3, 8, 8), (10,))
    affine: Any = network.layers[2]
    assert (affine.in_shape, affine.out_shape) == ((4, 4, 4), (10,))
    text = Sequential([LookupTable(9, 4, INIT), LSTM(3, INIT), RecurrentLast(), Affine(2, INIT)])
    assert text.configure(7).out_shape == (2,)
    assert text(torch.zeros(5, 7, dtype=torch.int64)).shape == (5, 2)


def test_configuring_disturbs_neither_modes_nor_statistics_nor_the_generator() -> None:
    seen = []

    class Watching(Layer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append((self.training, torch.is_grad_enabled()))
            return x

    frozen = BatchNorm().eval()
    network = Sequential([Affine(4, INIT, batch_norm=True), Dropout(0.5), frozen, Watching()])
    network.configure(3)
    before = torch.get_rng_state()
    network.configure(3)
    assert torch.equal(torch.get_rng_state(), before)
    assert seen == [(False, False)] * 2
    assert network.training
    assert all(layer.training for layer in network.modules() if layer is not frozen)
    assert not frozen.training
    norm: Any = network.layers[0].layers[2]  # type: ignore[index]
    assert norm.running_mean.tolist() == [0] * 4
    assert norm.running_var.tolist() == [1] * 4


def test_configuring_again_keeps_values_and_refuses_another_size() -> None:
    layer: Any = Linear(4, INIT).configure(3)
    before = layer.weight.clone()
    assert layer.configure((3, 9)).out_shape == (4, 9)
    assert torch.equal(layer.weight, before)
    with pytest.raises(ValueError, match=r"Linear cannot take samples of shape \(5,\)") as raised:
        layer.configure(5)
    assert len(str(raised.value)) <= 500
    assert (layer.in_shape, layer.out_shape) == ((3, 9), (4, 9))
    assert layer.training


def test_parameters_have_the_dtype_that_the_layer_was_moved_to() -> None:
    layer: Any = Affine(4, INIT).double().configure(3)
    assert {parameter.dtype for parameter in layer.parameters()} == {torch.float64}


REFUSED: list[tuple[Any, type[Exception], str]] = [
    (None, TypeError, "Linear's in_obj must be the number of features, or .* Received: in_obj=None"),
    ("images", TypeError, "Received: in_obj='images'"),
    (6.0, TypeError, "Received: in_obj=6.0"),
    (True, TypeError, "Received: in_obj=True"),
    ((3, 8.5, 8), TypeError, r"Received: in_obj=\(3, 8.5, 8\)"),
    (0, ValueError, "sizes of 1 or more.* Received: in_obj=0"),
    ((3, -8, 8), ValueError, r"Received: in_obj=\(3, -8, 8\)"),
    ((), ValueError, "one to three sizes"),
    ((3, 4, 8, 8), ValueError, r"one to three sizes.* Received: in_obj=\(3, 4, 8, 8\)"),
    (Linear(3, INIT), ValueError, r"out_shape is None.* Give it one first: in_obj.configure"),
    (nn.Linear(3, 3), TypeError, "a configured layer or a dataset with a shape. Received: in_obj=Linear"),
    (torch.zeros(5), ValueError, "one to three sizes"),
    (Dataset(shape=None), ValueError, "its shape is None"),
]


@pytest.mark.parametrize(("in_obj", "error", "message"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_has_no_shape_is_refused_and_nothing_is_changed(in_obj: Any, error: Any, message: str) -> None:
    layer = Linear(4, INIT)
    with pytest.raises(error, match=message) as raised:
        layer.configure(in_obj)
    assert len(str(raised.value)) <= 500
    assert is_lazy(layer.weight)
    assert layer.in_shape is None


def test_a_layer_that_fits_no_such_sample_says_so() -> None:
    with pytest.raises(ValueError, match=r"Convolution takes images .* Received: inputs of shape \(1, 6\)"):
        Conv((3, 3, 4), INIT).configure(6)
    with pytest.raises(ValueError, match=r"Convolution cannot take samples of shape \(3, 2, 2\).*Kernel size"):
        Conv((3, 3, 4), INIT).configure((3, 2, 2))
    with pytest.raises(TypeError, match=r"LSTM must return one tensor to be configured\. Received: a tuple"):
        Sequential([nn.LSTM(6, 2)]).configure((6, 7))


def test_gradients_cannot_be_allocated_before_there_are_shapes() -> None:
    for layer in (Linear(4, INIT, name="top"), Affine(4, INIT, name="top")):
        with pytest.raises(ValueError, match=r"'top' cannot allocate gradients.*layer.configure\(in_obj\) first"):
            layer.allocate()


def test_allocated_gradients_are_optimized_and_those_that_are_there_stay() -> None:
    layer: Any = Linear(4, INIT).configure(3)
    layer.allocate(shared_outputs=None, accumulate_updates=True)
    (weight, gradient), states = layer.get_params()
    assert gradient.shape == weight.shape == (4, 3)
    assert states == []
    gradient += 1
    layer.allocate()
    assert layer.get_params()[0][1] is gradient
    before = weight.clone()
    GradientDescentMomentum(0.1, 0.9).optimize([layer], 0)
    torch.testing.assert_close(weight, before - 0.1, rtol=0, atol=1e-6)
    assert len(layer.get_params()[1]) == 1


def test_a_frozen_lookup_table_gets_no_gradient() -> None:
    layer: Any = LookupTable(10, 3, INIT, update=False).configure(7)
    layer.allocate()
    assert layer.weight.grad is None


def test_the_documented_program_of_several_optimizers() -> None:
    layers: list[Any] = [
        Conv((11, 11, 64), strides=4, padding=3, init=INIT, bias=Constant(0), activation=Rectlin()),
        Affine(nout=40, init=INIT, bias=Constant(1), activation=Rectlin()),
        LSTM(output_size=30, init=INIT, activation=Logistic(), gate_activation=Tanh()),
        GRU(output_size=10, init=INIT, activation=Logistic(), gate_activation=Tanh()),
    ]
    for layer in layers:
        layer.configure(in_obj=(16, 28, 28))
        layer.allocate()
    assert [layer.out_shape for layer in layers] == [(64, 6, 6), (40,), (30, 28), (10, 28)]
    weight: Any = layers[1].layers[0].weight
    before = weight.clone()
    weight.grad += 1
    recurrent = RMSProp(gradient_clip_value=5)
    optimizer = MultiOptimizer(
        {
            "default": GradientDescentMomentum(learning_rate=0.001, momentum_coef=0.9, wdecay=0.005),
            "Bias": Adadelta(),
            "Convolution": Adam(),
            "Linear": RMSProp(),
            "LSTM": recurrent,
            "GRU": recurrent,
        }
    )
    optimizer.optimize([layer for layer in layers if isinstance(layer, ParameterLayer)], 0)
    step = 2e-3 / ((0.05 + 1e-6) ** 0.5 + 1e-6)  # RMSProp's first, with a gradient of 1
    torch.testing.assert_close(weight.detach(), before - step, rtol=0, atol=1e-6)
    assert len(layers[3].get_params()[0][1]) == 1


def test_layers_to_optimize_are_those_with_parameters() -> None:
    affine, lookup, plain = Affine(4, INIT, activation=Tanh()), LookupTable(9, 3, INIT), nn.Linear(3, 3)
    network = Sequential([lookup, Sequential([plain, Dropout()]), nn.ReLU(), affine])
    assert network.layers_to_optimize == [lookup, plain, *affine.layers[:2]]


def test_layers_have_the_backend_that_is_set() -> None:
    before = NervanaObject.be.bsz
    backend = gen_backend(batch_size=7)
    try:
        for layer in (Linear(2, INIT), Dropout(), Affine(2, INIT), Sequential([])):
            assert layer.be is backend is NervanaObject.be
            assert layer.be.bsz == 7
    finally:
        backend.bsz = before


def test_a_layer_of_ones_own_is_configured_by_running_it() -> None:
    class Doubled(ParameterLayer):
        def __init__(self, init: Any = None, name: str | None = None) -> None:
            super().__init__(init=init, name=name, parallelism="Disabled")
            self.weight = nn.Parameter(torch.empty(1))
            self.init.fill(self.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, x], 1) * self.weight

    layer = Doubled(init=Constant(2.0), name="doubled")
    assert layer.configure((3, 8, 9)).out_shape == (6, 8, 9)
    assert layer(torch.ones(1, 2)).tolist() == [[2, 2, 2, 2]]


@pytest.mark.parametrize("way", ["configure", "initialize"])
def test_layers_before_one_that_refuses_wait_for_a_shape_again(way: str) -> None:
    """They kept the wrong number of channels, and refused the right shape afterwards."""
    row = [
        Conv((3, 3, 4), INIT, bias=Constant(0.0), batch_norm=True),
        torch.nn.LazyConv2d(2, 3),
        LSTM(3, INIT),
        RecurrentLast(),
        Affine(2, INIT),
    ]
    model = Model(row)
    before = {name: (type(value), value.dtype) for name, value in model.state_dict(keep_vars=True).items()}
    with pytest.raises(ValueError if way == "configure" else RuntimeError):
        getattr(model, way)((5, 4, 4))
    assert {name: (type(value), value.dtype) for name, value in model.state_dict(keep_vars=True).items()} == before
    assert all(getattr(part, "out_shape", None) is None for part in model.modules())
    getattr(model, way)((3, 8, 8))
    assert model(torch.ones(2, 3, 8, 8)).shape == (2, 2)
    assert model.training


def test_a_single_layer_that_refuses_waits_again() -> None:
    layer = Convolution((3, 3, 4), Gaussian())
    with pytest.raises(ValueError, match="cannot take samples of shape"):
        layer.configure((5, 2, 2))
    assert layer.configure((1, 3, 3)).out_shape == (4, 1, 1)
    layer = Convolution((3, 3, 4), Gaussian())
    with pytest.raises(ValueError, match="cannot take samples of shape"):
        layer.configure((5, 2, 2))
    layer.load_state_dict({"weight": torch.ones(4, 2, 3, 3)})
    assert layer(torch.ones(1, 2, 3, 3)).flatten().tolist() == [18.0] * 4
