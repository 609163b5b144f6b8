"""What a step did to its parameters, from copies of these before and after it, in float64 and by no code of neon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neon.statistics import Row, StatisticsTable

Weights = list[Tensor]


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 33), nn.Tanh(), nn.Linear(33, 5))


def whole(param: Tensor, state: dict[str, Any]) -> Tensor:
    """A stored weight in float64."""
    if "low_bits" not in state:
        return param.detach().double().clone()
    high, low = (t.detach().contiguous().view(torch.int16).to(torch.int32) for t in (param, state["low_bits"]))
    return ((high << 16) + low).view(torch.float32).double()


def by_hand(
    names: Sequence[str],
    before: Weights,
    after: Weights,
    gradients: Sequence[Tensor],
    *,
    norms: Sequence[float] = (),
    value: float | None = None,
    rate: float | None = None,
) -> StatisticsTable:
    """The table; `norms` are bounds of the norm of all gradients, the outermost first."""
    grads = [g.double() for g in gradients]
    total = math.sqrt(sum(float((g * g).sum()) for g in grads))
    factors: list[float] = []
    for bound in norms:
        factors.append(min(1.0, bound / (math.prod(factors) * total)))
    rows = []
    for name, w0, w1, g in zip(names, before, after, grads, strict=True):
        stays, clipped = w0 == w1, (g * math.prod(factors)).abs() > abs(value or math.inf)
        row = Row(
            parameter=name,
            layer=name if name.startswith("group_") else name.rpartition(".")[0],
            elements=w0.numel(),
            gradient_norm=float((g * g).sum().sqrt()),
            weight_norm=float((w0 * w0).sum().sqrt()),
            update_norm=float(((w1 - w0) * (w1 - w0)).sum().sqrt()),
            largest_gradient=float(g.abs().max()) if g.numel() else 0.0,
            unmoved=share(stays),
            lost=share(stays & (g != 0)),
            clipped=None if value is None else share(clipped),
            clip_factors=tuple(factors),
            learning_rate=rate,
        )
        rows.append(row)
    return StatisticsTable(1, rows)


def share(holds: Tensor) -> float:
    return float(holds.double().mean()) if holds.numel() else 0.0


def assert_seen(found: StatisticsTable | None, expected: StatisticsTable) -> None:
    """The same rows, to the precision in which one element of an update is computed: that of the weight."""
    assert found is not None
    assert [row.parameter for row in found] == [row.parameter for row in expected]
    for row, other in zip(found, expected, strict=True):
        for name in ("layer", "elements", "largest_gradient", "unmoved", "lost"):
            assert getattr(row, name) == same(getattr(other, name)), (row.parameter, name)
        for name in ("gradient_norm", "weight_norm", "update_norm"):
            assert getattr(row, name) == close(getattr(other, name)), (row.parameter, name)
        # Whether an element is clipped that lies at the bound itself is a matter of the last bit.
        slack = 2 / max(1, row.elements)
        assert (row.clipped is None) == (other.clipped is None)
        assert abs((row.clipped or 0) - (other.clipped or 0)) <= slack
        assert row.clip_factors == close(other.clip_factors)
        if other.learning_rate is not None:
            assert row.learning_rate == close(other.learning_rate)


def same(number: Any) -> Any:
    """It, or NaN for NaN."""
    return pytest.approx(number, rel=0, abs=0, nan_ok=True) if isinstance(number, float) else number


def close(number: Any) -> Any:
    """It up to what float32 rounds."""
    return pytest.approx(number, rel=3e-7, nan_ok=True)
