"""Layers in parallel: MergeSum, MergeBroadcast, SkipNode."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neon.initializers import Gaussian
from neon.layers import (
    Activation,
    Affine,
    BatchNorm,
    Conv,
    Linear,
    MergeBroadcast,
    MergeSum,
    Pooling,
    Sequential,
    SkipNode,
)
from neon.models import Model
from neon.optimizers import GradientDescentMomentum, MultiOptimizer, RMSProp
from neon.transforms import CrossEntropyMulti, Rectlin, Softmax


def block() -> MergeSum:
    main = [BatchNorm(), Activation(Rectlin()), Conv((3, 3, 2), Gaussian(scale=0.3), padding=1, bias=Gaussian())]
    return MergeSum([SkipNode(), main], name="block")


def test_a_residual_block_and_its_gradients_against_torch_in_float64() -> None:
    torch.manual_seed(0)
    merged, x = block(), torch.randn(3, 2, 4, 4)
    merged(x)
    merged.double()
    x = x.double().requires_grad_()
    weight, bias = (p.detach().clone().requires_grad_() for p in list(merged.parameters())[2:])
    normal = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), correction=0, keepdim=True) + 1e-3).sqrt()
    expected = x + F.conv2d(normal.relu(), weight, bias, padding=1)
    torch.testing.assert_close(merged(x), expected, rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(expected.square().sum(), [x, weight, bias])
    found = torch.autograd.grad(merged(x).square().sum(), [x, *list(merged.parameters())[2:]])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("merge", "shape", "expected"),
    [
        ("depth", (2, 3, 4, 4), lambda x: torch.cat([x, 2 * x, 3 * x], 1)),
        ("recurrent", (2, 3, 4), lambda x: torch.cat([x, 2 * x, 3 * x], 1)),
        ("stack", (2, 3, 4), lambda x: torch.cat([x.flatten(1), 2 * x.flatten(1), 3 * x.flatten(1)], 1)),
    ],
)
def test_paths_beside_each_other(merge: str, shape: tuple[int, ...], expected: Any) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    paths = [SkipNode(), [Activation(lambda x: 2 * x)], Sequential([Activation(lambda x: 3 * x)])]
    assert torch.equal(MergeBroadcast(paths, merge)(x), expected(x))


def test_shapes_of_samples_follow_from_configure() -> None:
    inception = MergeBroadcast([[Conv((1, 1, 4), Gaussian())], [Pooling(3, strides=1, padding=1), SkipNode()]], "depth")
    network = Sequential([block(), inception, MergeBroadcast([SkipNode(), SkipNode()], merge="stack")])
    assert network.configure((2, 6, 6)).out_shape == (2 * 6 * 36,)
    assert (block().configure((2, 6, 6)).out_shape, inception.in_shape, inception.out_shape) == (
        (2, 6, 6),
        (2, 6, 6),
        (6, 6, 6),
    )


def test_layers_within_have_optimizers_of_their_own_and_costs_take_no_transform_of_one_path() -> None:
    torch.manual_seed(0)
    two = MergeSum([[Affine(3, Gaussian(), activation=Softmax())], [Linear(3, Gaussian(), name="side")]])
    model, x, t = Model([Linear(4, Gaussian()), two]), torch.randn(8, 4), torch.arange(8) % 3
    assert two.last_transform is None
    cost = CrossEntropyMulti()
    torch.testing.assert_close(torch.tensor(model.eval([(x, t)], cost)), cost(model(x), t).mean())
    opt = MultiOptimizer({"default": GradientDescentMomentum(0.1, 0.9), "Bias": RMSProp(), "side": RMSProp()})
    model.fit([(x, t)], cost, opt, 1)
    kinds = {type(layer).__name__: type(one).__name__ for one, found in opt.map_list.items() for layer in found}
    assert kinds["Bias"] == "RMSProp"
    assert {layer.name for found in opt.map_list.values() for layer in found if type(layer) is Linear} == {None, "side"}
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        (lambda: MergeSum(SkipNode()), TypeError, "layers must be a list of paths"),  # type: ignore[arg-type]
        (lambda: MergeSum([]), ValueError, "needs at least one path"),
        (
            lambda: MergeSum([SkipNode(), nn.Linear(3, 1)])(torch.ones(2, 3)),
            ValueError,
            r"merge samples.*\(3,\), \(1,\)",
        ),
        (lambda: MergeBroadcast([SkipNode()], "width"), ValueError, "depth, recurrent, stack.*merge='width'"),
        (lambda: MergeBroadcast([SkipNode()], "stack", [0.5]), ValueError, r"alphas must be ones.*\[0\.5\]"),
    ],
)
def test_bad_input_is_named(action: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        action()


def test_outputs_of_other_shapes_are_not_broadcast() -> None:
    def first(x: Tensor) -> Tensor:
        return x[:, :1]

    with pytest.raises(ValueError, match="cannot merge"):
        MergeSum([SkipNode(), Activation(first)])(torch.ones(2, 3))


@pytest.mark.parametrize("shape", [(2, 6), (2, 5, 3), (2, 3, 4, 4)])
def test_depth_puts_features_behind_each_other_whatever_the_inputs_are(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    features = {2: 1, 3: 2, 4: 1}[x.ndim]
    expected = torch.cat([x, 2 * x], features)
    assert torch.equal(MergeBroadcast([SkipNode(), Activation(lambda x: 2 * x)], "depth")(x), expected)


@pytest.mark.parametrize("shape", [(2, 6), (2, 3, 4, 4)])
def test_only_sequences_have_steps_to_put_behind_each_other(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(N, T, features\).*write merge='depth'"):
        MergeBroadcast([SkipNode(), SkipNode()], "recurrent")(torch.ones(shape))
