"""Transforms, costs, metrics and initializers, by hand and against torch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neon.initializers import Gaussian, GlorotUniform, Kaiming, Uniform
from neon.layers import GeneralizedCost
from neon.transforms import (
    Accuracy,
    CrossEntropyBinary,
    CrossEntropyMulti,
    Identity,
    Logistic,
    MeanSquared,
    Misclassification,
    Softmax,
    SumSquared,
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
    assert Accuracy()(y, t).tolist() == [1 - value for value in wrong]


def test_initializers_repeat_with_torchs_seed_and_leave_autograd_alone() -> None:
    for init in (Gaussian(), Uniform(), GlorotUniform(), Kaiming(local=False)):
        first, second = nn.Parameter(torch.empty(8, 8)), nn.Parameter(torch.empty(8, 8))
        for weight in (first, second):
            torch.manual_seed(1)
            init.fill(weight)
        assert torch.equal(first, second)
        assert first.is_leaf
        assert first.requires_grad
