"""The numbers of groups' rows in a steady step: the bits of those that the host computes otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from steady_runs import assert_same, contents, taken, train, without
from torch import nn

from neon.engine.steady_source import CODES
from neon.optimizers import Optimizer
from neon.optimizers.functions import (
    clip,
    equal,
    exp,
    log,
    maximum,
    minimum,
    power_of_two,
    remainder,
    sign,
    sqrt,
    where,
)  # fmt: skip

# What the engine's operations make of a number a, and of another one b that changes with the step.
FORMULAS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "neg": lambda a, b: -a * b,
    "abs": lambda a, b: abs(a) * b,
    "sign": lambda a, b: sign(a) * b,
    "sqrt": lambda a, b: sqrt(a) * b,
    "exp": lambda a, b: exp(a * b),
    "log": lambda a, b: log(a) * b,
    "minimum": minimum,
    "maximum": maximum,
    "power_of_two": lambda a, b: power_of_two(a) * b,
    "floor": lambda a, b: remainder(a, 0.25 * b),
    "less": lambda a, b: where(a < b, a, b),
    "less_equal": lambda a, b: where(a <= b, b, a),
    "equal": lambda a, b: where(equal(a, 2.0), a, b),
    "where": lambda a, b: clip(a, -1.0, 0.5) * b,
}
NUMBERS = (0.0, -0.0, 0.5, -0.3, 2.0, 3.7, -1e300, 1e-310, 7e11)


def test_every_operation_is_here() -> None:
    assert {*FORMULAS} == {*CODES}


@pytest.mark.parametrize("name", FORMULAS)
def test_every_operation_has_the_bits_of_python_and_numpy(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one row Python computes, of several numpy; each group has a number of its own."""
    formula = FORMULAS[name]

    class Moved(Optimizer):
        @staticmethod
        def rule(w, g, *, lr=1.0, a=0.5, step):  # type: ignore[no-untyped-def]
            return w * formula(a, lr * step)

    def run(numbers: tuple[float, ...]) -> list[torch.Tensor]:
        params = [nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in numbers]
        groups = [{"params": [param], "a": a} for param, a in zip(params, numbers, strict=True)]
        optimizer = Moved().attach(groups)
        for _ in range(5):  # where a weight ends says what its number is
            with torch.no_grad():
                for param in params:
                    param.fill_(1.0)
            train(params, optimizer, 1)
        steady.append(taken(optimizer))
        return contents(params, optimizer)

    ways, steady = [NUMBERS, *((number,) for number in NUMBERS)], list[int]()
    found = [run(numbers) for numbers in ways]
    assert steady == [3] * len(ways)
    without(monkeypatch)
    for numbers, before in zip(ways, found, strict=True):
        assert_same(run(numbers), before)
