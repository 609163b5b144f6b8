"""Initializers against their formulas, on the shapes that layers give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from neon.initializers import (
    Array,
    Constant,
    Gaussian,
    GlorotUniform,
    IdentityInit,
    Initializer,
    Kaiming,
    Orthonormal,
    Uniform,
    Xavier,
)
from neon.initializers import initializer as old_path
from neon.layers import Bias, Conv, Convolution, Linear, LookupTable


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# The number of inputs of a weight: of a convolution, all values of a window.
FANS = [((500, 80), 80), ((100, 16, 3, 5), 240)]


@pytest.mark.parametrize(("shape", "fan_in"), FANS)
@pytest.mark.parametrize("local", [True, False])
def test_xavier_is_uniform_within_the_bound_of_its_inputs(shape: tuple[int, ...], fan_in: int, local: bool) -> None:
    weight = torch.empty(shape)
    Xavier(local, "xavier").fill(weight)
    bound = (3 / fan_in) ** 0.5
    assert weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert weight.abs().max().item() <= bound
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (5, 5), (4, 2, 3, 3)])
def test_orthonormal_rows_or_columns(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight = torch.empty(shape, dtype=dtype)
    Orthonormal().fill(weight)
    matrix = weight.flatten(1).double()
    few = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    torch.testing.assert_close(few, 1.1**2 * torch.eye(len(few), dtype=torch.float64), rtol=0, atol=0.02)
    other = torch.empty(shape, dtype=dtype)
    Orthonormal().fill(other)
    assert not torch.equal(weight, other)


def test_the_identity_passes_inputs_on() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(Linear(4, IdentityInit())(x), x)
    assert torch.equal(Linear(2, IdentityInit(local=False))(x), x[:, :2])
    images = torch.randn(2, 3, 5, 6)
    assert torch.equal(Convolution((1, 1, 3), IdentityInit())(images), images)
    # the first value of a window belongs to its upper left corner
    assert torch.equal(Convolution((2, 2, 1), IdentityInit())(images)[:, 0], images[:, 0, :-1, :-1])


def test_arrays_fill_parameters_of_their_shape() -> None:
    values = np.arange(12.0).reshape(4, 3)
    for given in (values, torch.tensor(values), values.tolist()):
        layer: Any = LookupTable(4, 3, Array(given))
        assert layer.weight.tolist() == values.tolist()
    linear: Any = Linear(4, values)  # type: ignore[arg-type]
    linear.configure(3)
    assert linear.weight.tolist() == values.tolist()


def test_an_array_is_copied_when_the_initializer_is_made() -> None:
    values = np.zeros(2)
    init = Array(values, name="mean")
    values += 1
    bias = torch.empty(2)
    init.fill(bias)
    assert bias.tolist() == [0, 0]
    assert init == init
    assert init != Array(values)
    assert repr(Array(np.zeros((9, 9)))) == "Array(<Tensor of shape (9, 9)>)"


def test_arrays_in_the_shapes_of_the_documented_framework() -> None:
    bias: Any = Bias(Array([[1.0], [2.0]]))
    bias.configure(2)
    assert bias.bias.tolist() == [1, 2]
    channels, height, width, filters = 2, 3, 2, 5
    matrix = torch.randn(channels * height * width, filters)  # one column for each filter
    conv = Conv((height, width, filters), Array(matrix))
    images = torch.randn(4, channels, height, width)
    expected = images.flatten(1).double() @ matrix.double()
    torch.testing.assert_close(conv(images).flatten(1).double(), expected, rtol=1e-5, atol=1e-5)


def test_names_come_where_the_documented_framework_has_them() -> None:
    named = [
        Constant(1.0, "a"),
        Gaussian(0.0, 1.0, "a"),
        Uniform(0.0, 1.0, "a"),
        GlorotUniform("a"),
        Xavier(True, "a"),
        Kaiming(True, "a"),
        Orthonormal(1.1, "a"),
        IdentityInit(True, "a"),
        Array([1.0], "a"),
    ]
    assert {init.name for init in named} == {"a"}
    for init in named:
        assert getattr(old_path, type(init).__name__) is type(init)


def test_numbers_of_numpy_are_kept_as_pythons() -> None:
    init = Gaussian(np.float32(0.5), np.int64(2))  # type: ignore[arg-type]
    assert (type(init.loc), type(init.scale)) == (float, int)
    assert init == Gaussian(0.5, 2)


def test_an_initializer_of_ones_own_needs_no_name() -> None:
    @dataclass(frozen=True)
    class Twice(Initializer):
        half: float

        def fill(self, tensor: torch.Tensor) -> None:
            nn.init.constant_(tensor, 2 * self.half)

    weight = torch.empty(2)
    Twice(1.5).fill(weight)
    assert weight.tolist() == [3, 3]
    assert Twice(1.5).name is None


def test_an_initializer_of_ones_own_may_assign_to_the_parameter() -> None:
    class Ramp(Initializer):
        def __init__(self) -> None:
            super().__init__(name="ramp")

        def fill(self, tensor: torch.Tensor) -> None:
            tensor[:] = self.be.arange(tensor.numel()).reshape(tensor.shape)

    for layer in (Linear(2, Ramp()), LookupTable(2, 3, Ramp())):
        layer.configure(3)
        weight: Any = layer.weight
        assert weight.tolist() == [[0, 1, 2], [3, 4, 5]]
        assert isinstance(weight, nn.Parameter)
        assert weight.requires_grad
