"""The graph, tracing and printing: what a rule may do, and what it is told when it may not."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from neon.engine.program.graph import load, scalar, walk
from neon.engine.program.lowering import lower
from neon.engine.program.meanings import power_of_two
from neon.engine.program.operations import OPERATIONS
from neon.engine.program.options import Options
from neon.engine.program.printer import listing
from neon.engine.program.reductions import reduce
from neon.engine.program.slots import Formats
from neon.engine.program.spaces import TENSOR
from neon.engine.program.trace import trace
from neon.optimizers import Optimizer
from neon.optimizers.functions import maximum, norm, sqrt, where


def test_equal_expressions_are_one_node() -> None:
    a, b = load("a"), scalar("b")
    assert a * b + 1 is a * b + 1
    assert a * b is not b * a


def test_scalars_do_not_vary_and_elements_do() -> None:
    a, b = load("a"), scalar("b")
    assert (a * b).varies
    assert not (1 - b**2).varies
    assert not reduce("sum_of_squares", TENSOR, a).varies


@pytest.mark.parametrize("op", OPERATIONS)
def test_every_operation_is_written_in_every_language(op: str) -> None:
    """With a place for each operand; the host knows all but words."""
    operation = OPERATIONS[op]
    operands = [f"operand{place}" for place in range(len(operation.takes))]
    for language in ("a rule", "python", "numba", "triton", "triton_float64"):
        written = operation.source(language, language.removesuffix("_float64")).format(*operands)
        assert [written.count(operand) for operand in operands] == [1] * len(operands)
    assert (operation.floats is None) == (op == "block_peak" or "uint" in (operation.result, *operation.takes))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (lambda w, g, *, lr: w if g > 0 else w - lr, "cannot branch on the run-time value"),
        (lambda w, g, *, lr: w - lr * math.sqrt(g), "Use the functions of neon.optimizers.functions"),
        (lambda w, g, *, lr: (w - lr * g, w), "must return the new weight and its 0 states"),
        (lambda w, g, m, *, lr: w - lr * g, r"its 1 states \(w, m\); it returned one Symbol"),
        (lambda w, g, *, lr: "w", "must return an expression for 'w'; it returned 'w'"),
        (lambda weight, g, *, lr: weight, "must take the weight and the gradient first"),
        (lambda w, g, lr, *rest: w, "must take the weight and the gradient first"),
    ],
)
def test_what_a_rule_may_not_do(rule: object, message: str) -> None:
    custom = type("Custom", (Optimizer,), {"rule": staticmethod(rule)})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=message):
        custom(lr=0.1).attach([torch.zeros(2, requires_grad=True)])


def test_flags_are_fixed_and_numbers_are_not() -> None:
    def rule(w, g, *, lr, flip):  # type: ignore[no-untyped-def]
        return w + lr * g if flip else w - lr * g

    one = trace(rule, {"lr": 0.1, "flip": False}, Options())
    assert trace(rule, {"lr": 0.2, "flip": False}, Options()) is one
    assert trace(rule, {"lr": 0.1, "flip": True}, Options()) is not one
    assert one.numbers == ("lr",)


def test_what_a_rule_leaves_alone_is_not_stored() -> None:
    def rule(w, g, kept, *, lr):  # type: ignore[no-untyped-def]
        return w - lr * g * kept, kept

    assert set(trace(rule, {"lr": 0.1}, Options()).outputs) == {"w"}


def test_reductions_split_a_program_into_stages() -> None:
    def lamb_like(w, g, m, *, lr):  # type: ignore[no-untyped-def]
        m = 0.9 * m + g
        update = m / (norm(m) + 1e-6)
        return w - lr * norm(w) / norm(update) * update, m

    program = trace(lamb_like, {"lr": 0.1}, Options())
    kernel = lower(program, Formats(torch.float32, torch.float32, (torch.float32,)))
    assert [len(stage.reductions) for stage in kernel.stages] == [2, 1, 0]


def test_listing_reads_as_the_rule() -> None:
    def rule(w, g, m, *, lr):  # type: ignore[no-untyped-def]
        m = maximum(m, abs(g))
        return where(g > 0, w - lr * g / sqrt(m), w), m

    assert listing(trace(rule, {"lr": 0.1}, Options()).outputs) == (
        "x0 = maximum(m, abs(g))\nw ← where(0.0 < g, w - ((lr * g) / sqrt(x0)), w)\nm ← x0"
    )


def exact_power_of_two(x: float) -> float:
    """2^rint(log2|x|) by exact arithmetic."""
    if x == 0 or not math.isfinite(x):
        return abs(x)
    significand, exponent = math.frexp(abs(x))
    rounds_up = (2 * Fraction(significand)) ** 2 > 2
    power = Fraction(2) ** (exponent if rounds_up else exponent - 1)
    return float(power) if power < Fraction(2) ** 1024 else math.inf


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_power_of_two_is_exact(dtype: torch.dtype) -> None:
    root = torch.tensor(2.0, dtype=torch.float64).sqrt().to(dtype)
    around = [torch.nextafter(root, torch.tensor(e, dtype=dtype)) for e in (0.0, 9.0)]
    tiny = torch.finfo(dtype).smallest_normal
    special = [0.0, -0.0, tiny, tiny / 3, -tiny / 1024, torch.finfo(dtype).max, math.inf, -math.inf, math.nan]
    edges = torch.stack([root, *around])
    scaled = torch.cat([edges * 2.0**k for k in (-100, -5, 0, 7, 100)])
    drawn = torch.randn(2000, generator=torch.Generator().manual_seed(0), dtype=dtype)
    x = torch.cat([torch.tensor(special, dtype=dtype), scaled, -scaled, drawn])
    expected = torch.tensor([exact_power_of_two(v) for v in x.tolist()], dtype=torch.float64).to(dtype)
    torch.testing.assert_close(OPERATIONS["power_of_two"].torch(x), expected, rtol=0, atol=0, equal_nan=True)
    host = power_of_two(x.double().numpy())
    expected64 = np.array([exact_power_of_two(v) for v in x.tolist()])
    np.testing.assert_array_equal(host, expected64)


def test_walk_gives_arguments_first_and_each_node_once() -> None:
    a = load("a")
    root = (a + 1) * (a + 1) - a
    order = list(walk([root]))
    assert len(order) == len(set(order))
    assert all(order.index(argument) < order.index(node) for node in order for argument in node.args)
