"""What programs of the documented framework bring besides: LRN, masks of costs, metrics of several numbers, shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from neon.callbacks import Callbacks
from neon.data import ArrayIterator
from neon.initializers import Gaussian, GlorotUniform
from neon.layers import LRN, LSTM, Affine, Conv, Deconv, GeneralizedCostMask, Layer, Linear
from neon.models import Model
from neon.optimizers import Adam, GradientDescentMomentum
from neon.transforms import (
    Cost,
    CrossEntropyBinary,
    CrossEntropyMulti,
    Logistic,
    MeanSquared,
    Metric,
    Misclassification,
    Rectlin,
    SumSquared,
    TopKMisclassification,
)


def test_local_response_normalization_against_its_sum_in_float64() -> None:
    x = torch.randn(2, 7, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = torch.empty_like(x)
    for c in range(7):
        around = x[:, max(0, c - 2) : c + 3].square().sum(1)
        expected[:, c] = x[:, c] / (1 + 0.3 / 5 * around) ** 0.75
    torch.testing.assert_close(LRN(5, ascale=0.3, bpower=0.75)(x), expected, rtol=1e-13, atol=1e-13)
    low = LRN(5, ascale=0.3, bpower=0.75)(x.bfloat16())
    torch.testing.assert_close(low.double(), expected, rtol=2**-6, atol=0)
    assert LRN(5, 1.0, 0.0, 0.3, 0.75, "norm").configure((7, 3, 4)).out_shape == (7, 3, 4)


def masked_batch() -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    mask = np.repeat(rng.integers(0, 2, (6, 5, 1)), 3, axis=2).astype(np.float32)
    return rng.normal(size=(6, 5, 4)), (rng.integers(0, 2, (6, 5, 3)).astype(np.float32), mask)


def test_what_is_masked_gives_neither_cost_nor_gradient() -> None:
    torch.manual_seed(0)
    inputs, (targets, mask) = masked_batch()
    model = Model([Affine(3, Gaussian(scale=0.5), activation=Logistic())])
    model.initialize((4, 5))
    weight, bias = (p.detach().double().requires_grad_() for p in model.parameters())
    x, t, m = (torch.from_numpy(value).double() for value in (inputs, targets, mask))
    kept = F.binary_cross_entropy_with_logits(x @ weight.T + bias, t, reduction="none") * m
    expected = 2 * kept.sum() / len(x)
    expected.backward()
    cost = GeneralizedCostMask(costfunc=CrossEntropyBinary(), weights=2.0)
    batches = [(inputs, (targets, mask))]
    assert model.eval(batches, cost) == pytest.approx(expected.item(), rel=1e-6)
    before = [p.detach().double().clone() for p in model.parameters()]
    costs = model.fit(batches, cost, GradientDescentMomentum(0.5, 0.0), 1)
    assert costs == [pytest.approx(expected.item(), rel=1e-6)]
    for parameter, old, like in zip(model.parameters(), before, (weight, bias), strict=True):
        assert like.grad is not None
        torch.testing.assert_close(parameter.double(), old - 0.5 * like.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("target_shape", [(1, 8, 8), (64,)])
def test_an_autoencoder_of_images_learns_them_whatever_shape_the_targets_have(target_shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).random((32, 64)).astype(np.float32)
    init = Gaussian(scale=0.2)
    model = Model([Conv((3, 3, 4), init, activation=Rectlin()), Deconv((3, 3, 1), init)])
    data = ArrayIterator(x, x.reshape(32, *target_shape), lshape=(1, 8, 8), batch_size=8)
    costs = model.fit(data, MeanSquared(), Adam(learning_rate=0.01), 5)
    assert costs[-1] < 0.7 * costs[0]
    outputs = model.get_outputs(data).flatten(1).double().numpy()
    assert model.eval(data, MeanSquared()) == pytest.approx(0.5 * np.square(outputs - x).mean(), rel=1e-5)
    assert model.eval(ArrayIterator(x, lshape=(1, 8, 8)), SumSquared()) == pytest.approx(
        0.5 * np.square(outputs - x).sum(1).mean(), rel=1e-5
    )


def test_a_metric_of_three_numbers_is_an_array_also_in_callbacks(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    x, y = np.random.default_rng(0).normal(size=(10, 4)), np.arange(10) % 3
    model, data = Model([Affine(3, Gaussian(), activation=Logistic())]), ArrayIterator(x, y, nclass=3, batch_size=4)
    callbacks = Callbacks(model, data, eval_set=data, metric=TopKMisclassification(k=2), eval_freq=1)
    model.fit(data, CrossEntropyBinary(), Adam(), 2, callbacks)
    values = TopKMisclassification(2)(model.get_outputs(data), torch.from_numpy(y))
    (_, last) = callbacks.eval_costs
    np.testing.assert_allclose(last, values.double().mean(0).numpy(), rtol=1e-6)
    assert model.eval(data, Misclassification()) == pytest.approx(float(values[:, 1].mean()))
    assert " ".join(f"{value:.4g}" for value in np.asarray(last)) in " ".join(capsys.readouterr().out.split())


def test_shapes_of_sequences_are_in_the_documented_order() -> None:
    model = Model([LSTM(3, Gaussian()), Affine(2, Gaussian())])
    model.initialize(dataset=(7, 5))
    assert model.fprop(torch.zeros(4, 5, 7)).shape == (4, 5, 2)


def test_the_bias_of_an_affine_may_be_glorots() -> None:
    torch.manual_seed(0)
    layer = Affine(5999, GlorotUniform(), bias=GlorotUniform())
    layer.configure(1)
    for parameter in layer.parameters():  # a weight of one input, a bias: √(6 / 6000)
        assert 0.0315 < parameter.abs().max() <= 0.001**0.5


class SumsSamples(Cost):
    """As a cost is written where samples are the last dimension."""

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        return self.be.sum(self.be.square(y - t), axis=0) / 2


class InNumpy(Metric):
    def __call__(self, y: Tensor, t: Tensor) -> Any:
        return np.square(y.numpy() - t.numpy()).mean()


def test_a_cost_that_sums_over_the_samples_is_refused_and_a_mean_in_numpy_taken() -> None:
    x = np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)
    model, data = Model([Linear(4, Gaussian())]), ArrayIterator(x, batch_size=5)
    model.initialize(data)
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ValueError, match=r"each of the 5 samples.*shape \(1, 4\).*sum over axis=1"):
        model.fit(data, SumsSamples(), Adam(), 1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    expected = np.square(model.get_outputs(data).numpy() - x).mean()
    assert model.eval(data, InNumpy()) == pytest.approx(expected, rel=1e-6)


class Doubles(Layer):
    def fprop(self, inputs: Tensor, inference: bool = False) -> Tensor:
        return 2 * inputs


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        (lambda: Model([Doubles()])(torch.ones(2, 3)), NotImplementedError, r"Doubles must define forward\(self, x\)"),
        (lambda: GeneralizedCostMask(SumSquared(), weights=float("inf")), ValueError, "weights must be finite"),
        (lambda: LRN(4), ValueError, "depth must be odd. Received: 4"),
        (lambda: LRN(5, 1e-4, 0.75), ValueError, r"alpha and beta must be 1 and 0.*0\.75.*The scale is ascale"),
        (lambda: LRN(5)(torch.ones(2, 3)), ValueError, "LRN takes images"),
        (lambda: GeneralizedCostMask(SumSquared()).per_sample(torch.ones(2, 3), torch.ones(2, 3)), TypeError, "mask"),  # type: ignore[arg-type]
        (
            lambda: GeneralizedCostMask(SumSquared())(torch.ones(2, 3), (torch.ones(2, 3), torch.ones(2, 1))),
            ValueError,
            r"mask shaped like the outputs, \(2, 3\).*\(2, 1\)",
        ),
    ],
)
def test_bad_input_is_named(action: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        action()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lrn_of_16_bits_is_rounded_once_and_its_squares_do_not_overflow(dtype: torch.dtype) -> None:
    x = (300 * torch.randn(2, 7, 3, 4, generator=torch.Generator().manual_seed(0))).to(dtype)
    expected = LRN(5, ascale=0.3, bpower=0.75)(x.double())
    low = LRN(5, ascale=0.3, bpower=0.75)(x)
    assert low.dtype == dtype
    torch.testing.assert_close(low.double(), expected, rtol=0.51 * torch.finfo(dtype).eps, atol=0)


@pytest.mark.parametrize("targets", [torch.tensor([0, 1, 2]), torch.ones(1, 3), torch.ones(3, 1)])
def test_targets_under_a_mask_are_not_broadcast(targets: Tensor) -> None:
    with pytest.raises(ValueError, match=r"targets shaped like the outputs, \(3, 3\).*one_hot"):
        GeneralizedCostMask(CrossEntropyMulti())(torch.full((3, 3), 1 / 3), (targets, torch.ones(3, 3)))
