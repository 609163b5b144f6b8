"""Transforms, costs, metrics and initializers, by hand and against torch."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neon.initializers import Gaussian, GlorotUniform, Kaiming, Uniform
from neon.layers import Activation, GeneralizedCost
from neon.transforms import (
    Accuracy,
    CrossEntropyBinary,
    CrossEntropyMulti,
    Explin,
    Identity,
    Logistic,
    MeanSquared,
    Misclassification,
    Rectlin,
    Rectlinclip,
    Softmax,
    SumSquared,
    Tanh,
    TopKMisclassification,
    Transform,
)

X = torch.tensor([[0.5, -1.0, 2.0], [0.0, 0.1, 0.2]])
CLASSES = torch.tensor([2, 0])
ONE_HOT = F.one_hot(CLASSES, 3)

# cost, transform, logits, targets, what torch says
COSTS = [
    (CrossEntropyMulti(), Softmax(), X, CLASSES, F.cross_entropy(X, CLASSES, reduction="none")),
    (CrossEntropyMulti(), Softmax(), X, ONE_HOT, F.cross_entropy(X, CLASSES, reduction="none")),
    (
        CrossEntropyMulti(),
        Softmax(),
        X.expand(4, 2, 3),
        CLASSES.expand(4, 2),
        F.cross_entropy(X, CLASSES, reduction="sum").expand(4),
    ),
    (
        CrossEntropyBinary(),
        Logistic(),
        X,
        ONE_HOT,
        F.binary_cross_entropy_with_logits(X, ONE_HOT.float(), reduction="none").sum(1),
    ),
    (
        CrossEntropyBinary(),
        Logistic(),
        X[:, :1],
        torch.tensor([1, 0]),
        F.binary_cross_entropy_with_logits(X[:, 0], torch.tensor([1.0, 0.0]), reduction="none"),
    ),
    (SumSquared(), Identity(), X, ONE_HOT, (X - ONE_HOT).square().sum(1) / 2),
    (MeanSquared(), Identity(), X, ONE_HOT, (X - ONE_HOT).square().mean(1) / 2),
]


@pytest.mark.parametrize(("cost", "transform", "logits", "targets", "expected"), COSTS)
def test_costs_on_outputs_and_on_logits(
    cost: Any, transform: Any, logits: Tensor, targets: Tensor, expected: Tensor
) -> None:
    torch.testing.assert_close(cost(transform(logits), targets), expected)
    if cost.fuses_with is not None:
        assert cost.fuses_with == transform
        torch.testing.assert_close(cost.from_logits(logits, targets), expected)
    mean = GeneralizedCost(costfunc=cost)(transform(logits), targets)
    torch.testing.assert_close(mean, expected.mean())


@pytest.mark.parametrize(("cost", "targets"), [(CrossEntropyMulti(), [[0, 1]]), (CrossEntropyBinary(), [[0, 1]])])
def test_a_cost_stays_finite_where_outputs_underflow_and_exact_on_logits(cost: Any, targets: list[list[int]]) -> None:
    logits = torch.tensor([[900.0, -900.0]], requires_grad=True)
    outputs = cost(cost.fuses_with(logits), torch.tensor(targets))
    (gradient,) = torch.autograd.grad(outputs.sum(), logits)
    assert outputs.isfinite().all()
    assert gradient.isfinite().all()
    exact = cost.from_logits(logits, torch.tensor(targets))
    (gradient,) = torch.autograd.grad(exact.sum(), logits)
    assert exact.tolist() == [1800]
    assert gradient.tolist() == [[1, -1]]


@pytest.mark.parametrize(
    ("cost", "scaled", "targets"),
    [
        (CrossEntropyMulti(), CrossEntropyMulti(scale=3), CLASSES),
        (CrossEntropyBinary(), CrossEntropyBinary(0.25), ONE_HOT),
    ],
)
def test_scale_multiplies_the_gradient_and_leaves_the_value(cost: Any, scaled: Any, targets: Tensor) -> None:
    def found(cost: Any, x: Tensor, fused: bool) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        values = cost.from_logits(x, targets) if fused else cost(cost.fuses_with(x), targets)
        return values, torch.autograd.grad(values.sum(), x)[0]

    for fused in (True, False):
        (values, gradient), (same, more) = found(cost, X, fused), found(scaled, X, fused)
        assert torch.equal(values, same)
        torch.testing.assert_close(more, gradient * scaled.scale, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("cost", "transform"), [(case[0], case[1]) for case in COSTS])
def test_images_are_vectors_to_costs_and_metrics(cost: Any, transform: Any) -> None:
    vectors = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    images = vectors.reshape(4, 6, 1, 1), vectors.reshape(4, 1, 2, 3)
    targets = F.one_hot(torch.tensor([0, 5, 2, 2]), 6).float()
    expected = cost(transform(vectors), targets)
    assert expected.shape == (4,)
    for x in images:
        assert torch.equal(transform(x).flatten(1), transform(vectors))
        for t in (targets, targets.reshape(x.shape)):
            assert torch.equal(cost(transform(x), t), expected)
            assert torch.equal(Misclassification()(x, t), Misclassification()(vectors, targets))
            if cost.fuses_with is not None:
                assert torch.equal(cost.from_logits(x, t), cost.from_logits(vectors, targets))
        assert torch.equal(cost(transform(vectors), targets.reshape(x.shape)), expected)
    assert Misclassification()(images[0], torch.tensor([0, 5, 2, 2])).tolist() == [
        float(a != b) for a, b in zip(vectors.argmax(1).tolist(), [0, 5, 2, 2], strict=True)
    ]
    with pytest.raises(ValueError, match="shape"):
        cost(transform(images[1]), torch.zeros(4, 2, 3))


def test_bits_divide_value_and_gradient_by_the_logarithm_of_2() -> None:
    targets = torch.tensor([0, 1])
    for cost, factor in ((CrossEntropyMulti(usebits=True), 1.0), (CrossEntropyMulti(2, True), 2.0)):
        y = torch.tensor([[0.125, 0.875], [0.5, 0.5]], requires_grad=True)
        values = cost(y, targets)
        assert values.tolist() == [3, 1]
        (gradient,) = torch.autograd.grad(values.sum(), y)
        expected = torch.tensor([[-8.0, 0], [0, -2]]) * factor / math.log(2)
        torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(cost.from_logits(y.detach().log(), targets), torch.tensor([3.0, 1.0]))


def test_names_and_shortcuts_make_no_other_transform() -> None:
    pairs = [
        (Softmax(), Softmax(name="top", epsilon=1e-6)),
        (Logistic(), Logistic("gate", True)),
        (Tanh(), Tanh(name="g")),
        (Identity(), Identity("same")),
        (Rectlin(), Rectlin(0, "relu")),
        (Explin(), Explin(1.0, "elu")),
        (Rectlinclip(), Rectlinclip(0, "clip", 20)),
        (Gaussian(scale=0.1), Gaussian(0.0, 0.1, "gauss")),
    ]
    for one, named in pairs:
        assert one == named
        assert hash(one) == hash(named)
        assert named.name is not None
        assert "name" not in repr(named)
    assert Softmax() != Softmax(axis=1)
    assert Rectlin() != Rectlin(0.1)
    assert CrossEntropyMulti().fuses_with == Softmax(name="top")


def test_transforms_against_their_equations_in_float64() -> None:
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    positive, negative = torch.maximum(x, x.new_zeros(())), torch.minimum(x, x.new_zeros(()))
    expected = [
        (Rectlinclip(slope=0.5, xcut=2.0), torch.minimum(positive + 0.5 * negative, x.new_tensor(2.0))),
        (Rectlinclip(xcut=1.0), torch.minimum(positive, x.new_tensor(1.0))),
        (Explin(alpha=0.7), positive + 0.7 * (negative.exp() - 1)),
        (Logistic(shortcut=True), 1 / (1 + (-x).exp())),
    ]
    for transform, y in expected:
        torch.testing.assert_close(transform(x), y, rtol=1e-14, atol=1e-15)
    assert torch.autograd.gradcheck(Logistic(shortcut=True), x.clone().requires_grad_())


def test_a_transform_of_ones_own_has_a_name_and_a_backend() -> None:
    class Square(Transform):
        def __init__(self, name: str | None = None) -> None:
            super().__init__(name)

        def __call__(self, x: Tensor) -> Tensor:
            return self.be.square(x)

    layer = Activation(Square(name="square"))
    assert layer.transform.name == "square"  # type: ignore[attr-defined]
    assert layer(torch.tensor([3.0])).tolist() == [9]


@pytest.mark.parametrize(
    ("outputs", "targets", "wrong"),
    [
        ([[0.1, 0.9], [0.8, 0.2]], [1, 1], [0, 1]),
        ([[0.1, 0.9], [0.8, 0.2]], [[0, 1], [0, 1]], [0, 1]),
        ([[[0.1, 0.9], [0.8, 0.2]]], [[1, 1]], [0.5]),
        ([[0.9], [0.2], [0.7]], [1, 0, 0], [0, 0, 1]),
    ],
)
def test_metrics(outputs: list[Any], targets: list[Any], wrong: list[float]) -> None:
    y, t = torch.tensor(outputs), torch.tensor(targets)
    assert Misclassification()(y, t).tolist() == wrong
    assert Misclassification(steps=7)(y, t).tolist() == wrong
    assert Accuracy()(y, t).tolist() == [1 - value for value in wrong]


def chance_among_the_first(y: list[float], target: int, k: int) -> float:
    """The share of all orders of equals in which the target's class is among the first k."""
    above, equal = sum(v > y[target] for v in y), sum(v == y[target] for v in y)
    return sum(above + place < k for place in range(equal)) / equal


def test_three_numbers_of_the_most_probable_classes() -> None:
    y = torch.softmax(torch.randint(0, 4, (40, 6), generator=torch.Generator().manual_seed(0)).double(), 1)
    t = torch.arange(40) % 6
    for k in (1, 2, 5, 6, 9):
        metric = TopKMisclassification(k=k)
        expected = [
            [-math.log(p[c]), 1 - chance_among_the_first(p, c, 1), 1 - chance_among_the_first(p, c, k)]
            for p, c in zip(y.tolist(), t.tolist(), strict=True)
        ]
        for found in (metric(y, t), metric(y, F.one_hot(t, 6)), metric(y.reshape(40, 6, 1, 1), t)):
            torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
        steps = metric(y.reshape(8, 5, 6), t.reshape(8, 5))
        torch.testing.assert_close(steps, metric(y, t).reshape(8, 5, 3).mean(1))
        assert metric.metric_names == ["LogLoss", "Top1Misclass", f"Top{k}Misclass"]
    nothing = TopKMisclassification(2)(torch.tensor([[0.0, 1.0], [math.nan, math.nan]]), torch.tensor([0, 1]))
    assert nothing[0].tolist() == [50, 1, 0]
    assert nothing[1, 1:].tolist() == [1, 1]
    with pytest.raises(ValueError, match="k must be"):
        TopKMisclassification(0)


def test_initializers_repeat_with_torchs_seed_and_leave_autograd_alone() -> None:
    for init in (Gaussian(), Uniform(), GlorotUniform(), Kaiming(local=False)):
        first, second = nn.Parameter(torch.empty(8, 8)), nn.Parameter(torch.empty(8, 8))
        for weight in (first, second):
            torch.manual_seed(1)
            init.fill(weight)
        assert torch.equal(first, second)
        assert first.is_leaf
        assert first.requires_grad


def test_three_numbers_in_float16_and_for_targets_that_are_no_certainty() -> None:
    outputs = torch.tensor([[0.0, 1.0, 0.0], [0.2, 0.5, 0.3]])
    expected = torch.tensor([[50.0, 1.0, 0.5], [-math.log(0.3), 1.0, 0.0]])
    likely = torch.tensor([[0.6, 0.2, 0.2], [0.1, 0.1, 0.8]])  # as Misclassification reads them: classes 0 and 2
    torch.testing.assert_close(TopKMisclassification(2)(outputs, likely), expected)
    low = TopKMisclassification(2)(outputs.half(), torch.tensor([0, 2]))
    torch.testing.assert_close(low, expected.half())
    between = TopKMisclassification(2)(torch.tensor([[0.2, 0.5, 0.3]]), torch.tensor([[0.1, 0.8, 0.1]]))
    torch.testing.assert_close(between, torch.tensor([[math.log(2), 0.0, 0.0]]))
