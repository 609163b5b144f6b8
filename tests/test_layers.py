"""neon's layers against torch's own modules, and what they promise to optimizers and users."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neon.initializers import Constant, Gaussian, GlorotUniform, Kaiming, Uniform
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
    Deconvolution,
    Dropout,
    Layer,
    Linear,
    LookupTable,
    ParameterLayer,
    Pooling,
    Recurrent,
    RecurrentLast,
    RecurrentMean,
    RecurrentSum,
    Reshape,
    Sequential,
)
from neon.optimizers import GradientDescentMomentum
from neon.transforms import Identity, Logistic, Rectlin, Softmax, Tanh

INIT = Gaussian(scale=0.1)
VECTORS, SEQUENCES, IMAGES = (5, 6), (5, 7, 6), (5, 3, 8, 9)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# layer, shape of its inputs, shape of its outputs, shapes of its parameters
SHAPES = [
    (Linear(4, INIT), VECTORS, (5, 4), [(4, 6)]),
    (Linear(4, INIT), SEQUENCES, (5, 7, 4), [(4, 6)]),
    (Linear(4, INIT), IMAGES, (5, 4), [(4, 216)]),
    (Bias(INIT), VECTORS, VECTORS, [(6,)]),
    (Bias(INIT), SEQUENCES, SEQUENCES, [(6,)]),
    (Bias(INIT), IMAGES, IMAGES, [(3,)]),
    (Activation(Tanh()), VECTORS, VECTORS, []),
    (Dropout(0.5), IMAGES, IMAGES, []),
    (Reshape((2, 3)), VECTORS, (5, 2, 3), []),
    (Reshape((-1,)), IMAGES, (5, 216), []),
    (Convolution((3, 2, 4), INIT), IMAGES, (5, 4, 6, 8), [(4, 3, 3, 2)]),
    (Convolution((3, 3, 4), INIT, 2, 1), IMAGES, (5, 4, 4, 5), [(4, 3, 3, 3)]),
    (Convolution((3, 3, 4), INIT, (1, 2), (1, 0)), IMAGES, (5, 4, 8, 4), [(4, 3, 3, 3)]),
    (Convolution((3, 3, 4), INIT, {"str_w": 2}, {"pad_h": 1}), IMAGES, (5, 4, 8, 4), [(4, 3, 3, 3)]),
    (Convolution((3, 3, 4), INIT, dilation={"dil_h": 2, "dil_d": 1}), IMAGES, (5, 4, 4, 7), [(4, 3, 3, 3)]),
    (Convolution({"R": 3, "S": 2, "K": 4}, INIT, dilation=2), IMAGES, (5, 4, 4, 7), [(4, 3, 3, 2)]),
    # by the documented framework: (8 - 1)·2 - 2·1 + 2·(3 - 1) + 1 and (9 - 1)·1 - 2·0 + 1·(2 - 1) + 1
    (
        Deconvolution((3, 2, 4), INIT, {"str_h": 2}, {"pad_h": 1}, dilation={"dil_h": 2}),
        IMAGES,
        (5, 4, 17, 10),
        [(3, 4, 3, 2)],
    ),
    (Pooling("all", "avg", strides=1), IMAGES, (5, 3, 1, 1), []),
    (Pooling({"R": 2, "S": 3}, strides={}, padding={}), IMAGES, (5, 3, 4, 3), []),
    (Pooling((2, 3), strides={"str_h": 1}), IMAGES, (5, 3, 7, 3), []),
    (Pooling(2), IMAGES, (5, 3, 4, 4), []),
    (Pooling((3, 1), "avg", strides=2, padding=0), IMAGES, (5, 3, 3, 5), []),
    (BatchNorm(), VECTORS, VECTORS, [(6,), (6,)]),
    (BatchNorm(), SEQUENCES, SEQUENCES, [(6,), (6,)]),
    (BatchNorm(), IMAGES, IMAGES, [(3,), (3,)]),
    (Recurrent(4, INIT), SEQUENCES, (5, 7, 4), [(4, 6), (4, 4), (4,), (4,)]),
    (LSTM(4, INIT), SEQUENCES, (5, 7, 4), [(16, 6), (16, 4), (16,), (16,)]),
    (GRU(4, INIT), SEQUENCES, (5, 7, 4), [(12, 6), (12, 4), (12,), (12,)]),
    (GRU(4, INIT), IMAGES, (5, 9, 4), [(12, 24), (12, 4), (12,), (12,)]),
    (RecurrentLast(), SEQUENCES, (5, 6), []),
    (RecurrentSum(), SEQUENCES, (5, 6), []),
    (RecurrentMean(), SEQUENCES, (5, 6), []),
    (Reshape((0, -1)), IMAGES, (5, 3, 72), []),
    (Deconv((2, 2, 4), INIT, strides=2, bias=Constant()), IMAGES, (5, 4, 16, 18), [(3, 4, 2, 2), (4,)]),
    (Affine(4, INIT, activation=Softmax()), VECTORS, (5, 4), [(4, 6), (4,)]),
    (Conv((3, 3, 4), INIT, padding=1, bias=Constant()), IMAGES, (5, 4, 8, 9), [(4, 3, 3, 3), (4,)]),
]


@pytest.mark.parametrize(("layer", "inputs", "outputs", "parameters"), SHAPES, ids=[repr(row[0]) for row in SHAPES])
def test_shapes_are_inferred_and_gradients_flow(
    layer: nn.Module,
    inputs: tuple[int, ...],
    outputs: tuple[int, ...],
    parameters: list[tuple[int, ...]],
) -> None:
    layer = copy.deepcopy(layer)
    x = torch.randn(inputs, requires_grad=True)
    y = layer(x)
    assert y.shape == outputs
    assert [tuple(parameter.shape) for parameter in layer.parameters()] == parameters
    y.square().sum().backward()
    for tensor in (x, *layer.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()


def with_weights(module: nn.Module, *weights: Tensor) -> nn.Module:
    """A torch module that computes with a layer's parameters."""
    for parameter, weight in zip(module.parameters(), weights, strict=True):
        parameter.data = weight.detach()
    return module


def weights(layer: nn.Module, *names: str) -> list[Tensor]:
    return [getattr(layer, name) for name in names]


RNN_WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")

# layer, shape of its inputs, what torch makes of the same inputs and parameters
EQUALS_TORCH: list[tuple[Any, tuple[int, ...], Callable[[Any, Tensor], Tensor]]] = [
    (Linear(4, INIT), VECTORS, lambda layer, x: x @ layer.weight.T),
    (Linear(4, INIT), IMAGES, lambda layer, x: x.reshape(5, -1) @ layer.weight.T),
    (
        Convolution((3, 3, 4), INIT, strides=2, padding=1),
        IMAGES,
        lambda layer, x: with_weights(nn.Conv2d(3, 4, 3, 2, 1, bias=False), layer.weight)(x),
    ),
    (
        Conv((3, 3, 4), INIT, bias=Uniform()),
        IMAGES,
        lambda layer, x: with_weights(nn.Conv2d(3, 4, 3), *layer.parameters())(x),
    ),
    (
        Convolution((3, 2, 4), INIT, strides=2, padding=1, dilation=(2, 3)),
        IMAGES,
        lambda layer, x: with_weights(nn.Conv2d(3, 4, (3, 2), 2, 1, (2, 3), bias=False), layer.weight)(x),
    ),
    (
        Deconv((3, 2, 4), INIT, 2, 1, 2, Uniform(), activation=Tanh()),
        IMAGES,
        lambda layer, x: with_weights(nn.ConvTranspose2d(3, 4, (3, 2), 2, 1, dilation=2), *layer.parameters())(
            x
        ).tanh(),
    ),
    (Pooling("all", "avg"), IMAGES, lambda _, x: x.mean((2, 3), keepdim=True)),
    (Pooling("all"), IMAGES, lambda _, x: x.amax((2, 3), keepdim=True)),
    (Pooling(3, strides=2), IMAGES, lambda _, x: nn.MaxPool2d(3, 2)(x)),
    (Pooling(2, "avg", padding=1), IMAGES, lambda _, x: nn.AvgPool2d(2, padding=1)(x)),
    (BatchNorm(), VECTORS, lambda _, x: nn.BatchNorm1d(6, eps=1e-3)(x)),
    (BatchNorm(), SEQUENCES, lambda _, x: nn.BatchNorm1d(6, eps=1e-3)(x.mT).mT),
    (BatchNorm(), IMAGES, lambda _, x: nn.BatchNorm2d(3, eps=1e-3)(x)),
    (
        Recurrent(4, INIT, activation=Rectlin()),
        SEQUENCES,
        lambda layer, x: with_weights(
            nn.RNN(6, 4, nonlinearity="relu", batch_first=True), *weights(layer, *RNN_WEIGHTS)
        )(x)[0],
    ),
    (
        LSTM(4, INIT, init_inner=GlorotUniform()),
        SEQUENCES,
        lambda layer, x: with_weights(nn.LSTM(6, 4, batch_first=True), *weights(layer, *RNN_WEIGHTS))(x)[0],
    ),
    (RecurrentLast(), SEQUENCES, lambda _, x: x[:, 6, :]),
    (Activation(Rectlin()), VECTORS, lambda _, x: nn.ReLU()(x)),
    (Activation(Rectlin(0.2)), VECTORS, lambda _, x: nn.LeakyReLU(0.2)(x)),
    (Activation(Logistic()), VECTORS, lambda _, x: 1 / (1 + (-x).exp())),
    (Activation(Softmax(axis=1)), SEQUENCES, lambda _, x: nn.Softmax(1)(x)),
    (Activation(Identity()), VECTORS, lambda _, x: x),
]


@pytest.mark.parametrize(("layer", "inputs", "torchs"), EQUALS_TORCH, ids=[repr(row[0]) for row in EQUALS_TORCH])
def test_values_equal_torchs(
    layer: nn.Module, inputs: tuple[int, ...], torchs: Callable[[Any, Tensor], Tensor]
) -> None:
    layer = copy.deepcopy(layer)
    x = torch.randn(inputs)
    y = layer(x)
    torch.testing.assert_close(y, torchs(layer, x), rtol=1e-6, atol=1e-6)


def test_batch_norm_in_evaluation_uses_averages_with_weight_rho() -> None:
    layer = BatchNorm(rho=0.75)
    x = torch.randn(VECTORS)
    layer(x)
    mean, variance = 0.25 * x.mean(0), 0.75 + 0.25 * x.var(0)
    expected = (x - mean) / (variance + 1e-3).sqrt()
    torch.testing.assert_close(layer.eval()(x), expected)


def test_dropout_keeps_the_share_it_is_given() -> None:
    layer, x = Dropout(keep=0.8), torch.ones(1000, 100)
    y = layer(x)
    assert y.unique().tolist() == [0, 1.25]
    assert (y != 0).float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert torch.equal(layer.eval()(x), x)


def test_lookup_table_gives_rows() -> None:
    layer = LookupTable(10, 3, INIT)
    indices = torch.tensor([[1, 9], [0, 1]])
    assert torch.equal(layer(indices), layer.weight[indices])


def test_a_lookup_table_that_is_not_updated_stays_under_every_optimizer() -> None:
    layer = LookupTable(10, 3, INIT, False)
    before = layer.weight.clone()
    network = Sequential([layer, Affine(2, INIT)])
    network(torch.tensor([[1, 9]])).sum().backward()
    GradientDescentMomentum(0.1, 0.9, wdecay=0.1).optimize(list(network.layers), 0)
    assert torch.equal(layer.weight, before)


def test_the_vector_of_padding_is_zero_and_has_no_gradient() -> None:
    layer = LookupTable(10, 3, Constant(1.0), pad_idx=2)
    y = layer(torch.tensor([[2, 1]]))
    assert y.tolist() == [[[0] * 3, [1] * 3]]
    y.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.sum(1).nonzero().flatten().tolist() == [1]


@pytest.mark.parametrize("kind", [Linear, Convolution, Deconvolution])
def test_what_means_nothing_here_is_taken(kind: Any) -> None:
    size = 3 if kind is Linear else (3, 3, 3)
    layer = kind(size, INIT, bsum=True, parallelism="Data")
    assert repr(layer) == repr(kind(size, INIT))
    assert repr(Affine(3, INIT, parallelism="Disabled")) == repr(Affine(3, INIT))


def test_layers_with_parameters_are_parameter_layers() -> None:
    with_parameters = [
        *(Linear(2, INIT), Bias(INIT), Convolution((1, 1, 2), INIT), Deconvolution((1, 1, 2), INIT), BatchNorm()),
        *(LookupTable(3, 2, INIT), Recurrent(2, INIT), LSTM(2, INIT), GRU(2, INIT)),
        *(Affine(2, INIT), Conv((1, 1, 2), INIT), Deconv((1, 1, 2), INIT)),
    ]
    without = [Activation(Tanh()), Dropout(), Pooling(2), Reshape((-1,)), RecurrentSum(), Sequential([Linear(2, INIT)])]
    assert all(isinstance(layer, ParameterLayer) for layer in with_parameters)
    assert not any(isinstance(layer, ParameterLayer) for layer in without)


def test_affine_is_a_linear_a_bias_and_an_activation() -> None:
    affine = Affine(nout=5, init=Gaussian(), activation=Softmax())
    assert [type(layer) for layer in affine.layers] == [Linear, Bias, Activation]
    activation = affine.layers[2]
    assert isinstance(activation, Activation)
    assert activation.get_params() == []
    without = Affine(nout=5, init=Gaussian(), bias=None)
    assert [type(layer) for layer in without.layers] == [Linear]
    everything = Affine(5, INIT, activation=Tanh(), batch_norm=True)
    assert [type(layer) for layer in everything.layers] == [Linear, Bias, BatchNorm, Activation]
    conv = Conv((3, 3, 5), INIT, bias=Constant(), batch_norm=True, activation=Rectlin())
    assert [type(layer) for layer in conv.layers] == [Convolution, Bias, BatchNorm, Activation]
    assert [type(layer) for layer in Conv((3, 3, 5), INIT).layers] == [Convolution]
    deconv = Deconv((3, 3, 5), INIT, 2, 1, 1, Constant(), True, Rectlin(), "up")
    assert [type(layer) for layer in deconv.layers] == [Deconvolution, Bias, BatchNorm, Activation]
    assert deconv.name == "up"


def test_get_params_returns_the_parameters_and_the_same_states_each_time() -> None:
    layer: Any = Linear(4, INIT)
    layer(torch.randn(VECTORS)).sum().backward()
    (param, grad), states = layer.get_params()
    assert states == []
    assert not param.requires_grad
    assert param.data_ptr() == layer.weight.data_ptr()
    assert grad is layer.weight.grad
    states.append(torch.zeros(4, 6))
    assert layer.get_params()[1] is states


@pytest.mark.parametrize(
    ("layer", "inputs", "count"),
    [(BatchNorm(), VECTORS, 2), (LSTM(4, INIT), SEQUENCES, 4), (Pooling(2), IMAGES, 0)],
    ids=repr,
)
def test_get_params_lists_none_or_several(layer: Layer, inputs: tuple[int, ...], count: int) -> None:
    layer(torch.randn(inputs))
    entries = layer.get_params()
    assert isinstance(entries, list)
    assert len(entries) == count


def test_before_the_first_batch_a_layer_has_params_without_gradients() -> None:
    layer: Any = Linear(4, INIT)
    (param, grad), states = layer.get_params()
    assert is_lazy(param)
    assert grad is None
    assert states == []


def test_sequential_flattens_lists_and_calls_layers_by_their_names() -> None:
    shared = Linear(6, INIT)
    first = Linear(6, INIT, name="first")
    layers = Sequential([[first, [shared]], shared, nn.Linear(6, 2), Linear(3, INIT, name="first")])
    assert len(layers.layers) == 5
    assert layers.layers[1] is layers.layers[2] is shared
    assert layers(torch.randn(VECTORS)).shape == (5, 3)
    names = [name for name, _ in layers.named_parameters()]
    assert names == ["first.weight", "1.weight", "3.weight", "3.bias", "4.weight"]


@pytest.mark.parametrize("name", ["a.b", "3", "name", "layers", "training", "", "forward"])
def test_a_name_that_torch_cannot_take_falls_back_to_the_position(name: str) -> None:
    layers = Sequential([Bias(INIT), Bias(INIT, name=name)])
    assert [key for key, _ in layers.named_children()] == ["0", "1"]
    assert layers.layers[1].name == name


def test_logits_stop_before_the_last_transform() -> None:
    x = torch.randn(VECTORS)
    network = Sequential([Affine(4, INIT, activation=Tanh()), Affine(3, INIT, activation=Softmax())])
    torch.testing.assert_close(network(x), torch.softmax(network.logits(x), -1))
    assert network.last_transform == Softmax()
    plain = Sequential([Affine(4, INIT, activation=Tanh()), Affine(3, INIT)])
    assert plain.last_transform is None
    assert torch.equal(plain(x), plain.logits(x))


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [(Linear(4, INIT), VECTORS), (BatchNorm(), IMAGES), (LSTM(4, INIT), SEQUENCES)],
    ids=repr,
)
def test_layers_copy_pickle_and_load_before_and_after_the_first_batch(
    layer: nn.Module, inputs: tuple[int, ...]
) -> None:
    x = torch.randn(inputs)
    fresh = copy.deepcopy(layer)
    trained = copy.deepcopy(layer)
    y = trained(x)
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(x), y)
    assert torch.equal(copy.deepcopy(trained)(x), y)
    assert torch.equal(pickle.loads(pickle.dumps(trained))(x), y)
    assert pickle.loads(pickle.dumps(layer))(x).shape == y.shape


def test_a_layer_takes_on_the_dtype_it_is_moved_to_before_its_first_batch() -> None:
    network = Sequential([Affine(4, INIT, batch_norm=True), Reshape((1, 4)), LSTM(2, INIT)])
    y = network.double()(torch.randn(VECTORS, dtype=torch.float64))
    assert y.dtype == torch.float64
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float64}


def test_a_layer_whose_initialization_failed_never_runs_on_what_is_left() -> None:
    layer = Bias(Kaiming())
    for _ in range(2):
        with pytest.raises(ValueError, match="Kaiming needs a weight"):
            layer(torch.randn(VECTORS))
        assert is_lazy(layer.bias)
    layer.init = Constant(2.0)
    assert torch.equal(layer(torch.zeros(VECTORS)), torch.full(VECTORS, 2.0))


def test_each_gate_of_an_lstm_is_initialized_as_a_matrix_of_its_own() -> None:
    layer = LSTM(100, GlorotUniform())
    layer(torch.randn(1, 1, 50))
    for gate in layer.weight_ih_l0.chunk(4):
        assert gate.abs().max().item() == pytest.approx((6 / 150) ** 0.5, rel=0.01)
    assert torch.count_nonzero(layer.bias_ih_l0) == torch.count_nonzero(layer.bias_hh_l0) == 0


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Linear(2, Gaussian()), (4, 3)),
        (Affine(2, Gaussian(), batch_norm=True), (4, 1, 3, 3)),
        (Conv((2, 2, 3), Gaussian()), (4, 1, 3, 3)),
        (Deconv((2, 2, 3), Gaussian()), (4, 1, 3, 3)),
        (BatchNorm(), (4, 3)),
        (Bias(Gaussian()), (4, 3)),
        (Recurrent(2, Gaussian()), (4, 3, 3)),
        (LSTM(2, Gaussian(), reset_cells=False), (4, 3, 3)),
        (GRU(2, Gaussian()), (4, 3, 3)),
    ],
)
def test_pixels_of_eight_bits_are_inputs(layer: Any, shape: tuple[int, ...]) -> None:
    """The documented framework makes float32 of all inputs."""
    pixels = torch.arange(4 * math.prod(shape[1:]), dtype=torch.uint8).reshape(shape)
    layer.eval()
    expected = layer(pixels.float())
    layer.train().eval()
    assert torch.equal(layer(pixels), expected)
    assert layer.double()(pixels).dtype == torch.float64
