"""The functions a rule may call: each takes floats, tensors and symbols alike.

All of them, and the operators, give the same bits on every device, but for `exp`, `log` and `**`. These are computed in
float64: rounded to float32 no two devices were found to differ (a chance of 1 in 10⁸ for each element), of float64
parameters they may in the last place (1 unit between processors' libraries, by measurement). Powers of ½, 1, 1½, 2, 2½,
3 and 4, and one over these, are products and square roots, and exact alike.
"""

from __future__ import annotations

from typing import Any

import torch

from neon.engine.program.graph import sum_of_squares
from neon.engine.program.operations import OPERATIONS
from neon.engine.program.options import ALONE
from neon.engine.program.symbols import Symbol, operation

__all__ = [
    "clip", "equal", "exp", "log", "maximum", "minimum", "norm", "power_of_two", "sign", "sqrt", "where",
]  # fmt: skip

# A rule is one function for floats, tensors and symbols; its values are therefore typed as Any.
Value = Any


def _apply(op: str, *args: Value) -> Value:
    if any(isinstance(a, Symbol) for a in args):
        return operation(op, *args)
    like = next((a for a in args if isinstance(a, torch.Tensor) and a.is_floating_point()), None)
    if like is None:
        return float(OPERATIONS[op].host(*args))
    return OPERATIONS[op].torch(*(a if isinstance(a, torch.Tensor) else torch.full_like(like, a) for a in args))


def sqrt(x: Value) -> Value:
    """√x."""
    return _apply("sqrt", x)


def exp(x: Value) -> Value:
    """eˣ. Of float32 by way of float64, and so alike on every device; of float64 they may differ in the last place."""
    return _apply("exp", x)


def log(x: Value) -> Value:
    """The natural logarithm. Of float32 by way of float64; of float64 devices may differ in the last place."""
    return _apply("log", x)


def sign(x: Value) -> Value:
    """−1, 0 or 1."""
    return _apply("sign", x)


def maximum(a: Value, b: Value) -> Value:
    """The larger of the two; NaN if either is."""
    return _apply("maximum", a, b)


def minimum(a: Value, b: Value) -> Value:
    """The smaller of the two; NaN if either is."""
    return _apply("minimum", a, b)


def clip(x: Value, low: Value, high: Value) -> Value:
    """x, into [low, high]; NaN stays NaN."""
    return minimum(maximum(x, low), high)


def equal(a: Value, b: Value) -> Value:
    """Whether a = b, as `a == b`."""
    return _apply("equal", a, b)


def where(condition: Value, a: Value, b: Value) -> Value:
    """a where the condition holds, else b."""
    if isinstance(condition, bool):
        return a if condition else b
    return _apply("where", condition, a, b)


def power_of_two(x: Value) -> Value:
    """2^rint(log₂|x|), the power of two nearest in ratio, exactly; 0 for 0."""
    return _apply("power_of_two", x)


def norm(x: Value) -> Value:
    """‖x‖₂ over the whole tensor, accumulated in float64 in a fixed order."""
    if isinstance(x, Symbol):
        return operation("sqrt", Symbol(sum_of_squares(x.node, ALONE)))
    if isinstance(x, torch.Tensor):
        return torch.linalg.vector_norm(x, dtype=torch.float64).to(x.dtype)
    return abs(float(x))
