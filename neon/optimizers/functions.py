"""The functions a rule may call: each takes floats, tensors and symbols alike.

All of them, and the operators, give the same bits on every device, but for `exp`, `log` and `**`. These are computed in
float64: rounded to float32 no two devices were found to differ (a chance of 1 in 10⁸ for each element), of float64
parameters they may in the last place (1 unit between processors' libraries, by measurement). Powers of ½, 1, 1½, 2, 2½,
3 and 4, and one over these, are products and square roots, and exact alike.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from neon.engine.program.operations import OPERATIONS
from neon.engine.program.reductions import REDUCTIONS
from neon.engine.program.spaces import COLUMNS, ROWS, TENSOR, Scope
from neon.engine.program.symbols import Symbol, operation, precision, reduction
from neon.engine.program.symbols import count as count_of

__all__ = [
    "clip",
    "count",
    "dot",
    "equal",
    "exp",
    "largest",
    "log",
    "machine_epsilon",
    "maximum",
    "mean",
    "mean_square",
    "minimum",
    "norm",
    "power_of_two",
    "remainder",
    "rms",
    "sign",
    "sqrt",
    "total",
    "where",
]  # fmt: skip

# A rule is one function for floats, tensors and symbols; its values are therefore typed as Any.
Value = Any


def _apply(op: str, *args: Value) -> Value:
    if any(isinstance(a, Symbol) for a in args):
        return operation(op, *args)
    tensors = [a for a in args if isinstance(a, torch.Tensor)]
    if not tensors:
        return float(OPERATIONS[op].host(*args))
    floats = [a for a in tensors if a.is_floating_point()]  # a choice among numbers has none
    like = floats[0] if floats else tensors[0].new_empty((), dtype=torch.get_default_dtype())
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


def remainder(a: Value, b: Value) -> Value:
    """What is left of a once b is taken away as often as it goes: `equal(remainder(step, k), 0)` holds every k steps.

    For numbers, such as `step`, not for elements; of whole numbers it is exact.
    """
    for x in (a, b):
        if isinstance(x, Symbol) and x.node.varies:
            raise TypeError(f"remainder is for numbers that a step has one of, such as step; {x!r} is one per element.")
    return a - b * _apply("floor", a / b)


def where(condition: Value, a: Value, b: Value) -> Value:
    """a where the condition holds, else b."""
    if isinstance(condition, bool):
        return a if condition else b
    return _apply("where", condition, a, b)


def power_of_two(x: Value) -> Value:
    """2^rint(log₂|x|), the power of two nearest in ratio, exactly; 0 for 0."""
    return _apply("power_of_two", x)


# The dimension along which a reduction that keeps rows or columns goes.
_ALONG: dict[Scope, int] = {ROWS: -1, COLUMNS: -2}


def _reduce(op: str, over: Scope, *operands: Value) -> Value:
    """A reduction: of tensors over all elements, or along a dimension, which is one then; of floats over one."""
    if any(isinstance(x, Symbol) for x in operands):
        return reduction(op, over, *operands)
    tensors = [x for x in operands if isinstance(x, torch.Tensor)]
    kind, like = REDUCTIONS[op], tensors[0] if tensors else torch.zeros((), dtype=torch.float64)
    terms = kind.torch(*(torch.as_tensor(x, dtype=torch.float64, device=like.device).expand_as(like) for x in operands))
    if over in _ALONG and tensors:
        found = (terms.amax if kind.by_size else terms.sum)(_ALONG[over], keepdim=True)
    else:
        found = terms.max() if kind.by_size else terms.sum()
    return found.to(like.dtype) if tensors else found.item()


def count(x: Value, over: Scope = TENSOR) -> Value:
    """How many elements x has, over the same as `total`: of ROWS as many as there are columns; all shards count."""
    if isinstance(x, Symbol):
        return count_of(over) if over in _ALONG else reduction("total", over, 1.0)
    if not isinstance(x, torch.Tensor):
        return 1.0
    return float(x.shape[_ALONG[over]] if over in _ALONG else x.numel())


def norm(x: Value, over: Scope = TENSOR) -> Value:
    """‖x‖₂ over the whole tensor, over each of its ROWS or COLUMNS, or over all tensors of the optimizer."""
    return sqrt(_reduce("sum_of_squares", over, x))


def total(x: Value, over: Scope = TENSOR) -> Value:
    """Σx over the whole tensor, over each of its ROWS or COLUMNS, or over all tensors of the optimizer."""
    return _reduce("total", over, x)


def dot(x: Value, y: Value, over: Scope = TENSOR) -> Value:
    """Σxy, over the same as `total`; the products are exact."""
    return _reduce("dot", over, x, y)


def largest(x: Value, over: Scope = TENSOR) -> Value:
    """max|x|, over the same as `total`; NaN if any is."""
    return _reduce("largest", over, x)


def mean(x: Value, over: Scope = TENSOR) -> Value:
    """The mean of x, over the same as `total`: of `ROWS` one for each row, of `COLUMNS` one for each column."""
    return total(x, over) / count(x, over)


def mean_square(x: Value, over: Scope = TENSOR) -> Value:
    """The mean of x², over the same as `total`; the squares are exact."""
    return _reduce("sum_of_squares", over, x) / count(x, over)


def rms(x: Value, over: Scope = TENSOR) -> Value:
    """√(mean of x²), over the same as `total`."""
    return sqrt(mean_square(x, over))


def machine_epsilon(w: Value) -> Value:
    """The precision of the weight's format, `torch.finfo(w.dtype).eps`."""
    if isinstance(w, Symbol):
        return precision()
    return torch.finfo(w.dtype).eps if isinstance(w, torch.Tensor) else sys.float_info.epsilon
