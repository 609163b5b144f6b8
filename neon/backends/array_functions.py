"""Functions of a backend that torch spells otherwise, or that mean something else there under the same name.

Each takes tensors; numbers too where it has two operands. `out`, a tensor, is filled with the result and returned.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from neon.messages import received

Function = Callable[..., Any]

# The documented framework's logarithm goes no further down: its value there is −50.
_LEAST = math.exp(-50)


def _bound(a: Any, b: Any, by_number: Function, by_tensor: Function) -> Tensor:
    """torch's maximum and minimum take no numbers, its clamp no tensor of another shape."""
    if not isinstance(a, Tensor):
        a, b = b, a
    return by_tensor(a, b) if isinstance(b, Tensor) else by_number(a, b)


def _take(a: Tensor, indices: Any, axis: int | None) -> Tensor:
    """Elements of an axis; with None, of all in a row."""
    chosen = torch.as_tensor(indices, device=a.device).flatten().long()
    return a.flatten()[chosen] if axis is None else a.index_select(axis, chosen)


# torch's own take tensors alone, or numbers in one place alone.
_ELEMENTWISE: dict[str, Function] = {
    "absolute": torch.abs,
    "add": operator.add,
    "clip": lambda a, a_min, a_max: torch.clamp(a, a_min, a_max),
    "divide": operator.truediv,
    "dot": torch.matmul,  # of matrices: torch's dot is of vectors
    "equal": operator.eq,  # element by element: torch's equal is one answer for all
    "fabs": torch.abs,
    "finite": torch.isfinite,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "less": operator.lt,
    "less_equal": operator.le,
    "maximum": lambda a, b: _bound(a, b, Tensor.clamp_min, torch.maximum),
    "minimum": lambda a, b: _bound(a, b, Tensor.clamp_max, torch.minimum),
    "multiply": operator.mul,
    "negative": torch.neg,
    "not_equal": operator.ne,
    "power": operator.pow,
    "rint": torch.round,
    "safelog": lambda a: a.clamp_min(_LEAST).log(),
    "sgn": torch.sign,
    "sig": torch.sigmoid,
    "sig2": lambda a: torch.sigmoid(a * math.log(2)),
    "subtract": operator.sub,
    "take": _take,
    "tanh2": lambda a: torch.tanh(a * math.log(2)),
    "transpose": lambda a: a.mT,
    "true_divide": operator.truediv,
}

# The variance is that of the values themselves, over n: torch's is an estimate, over n − 1.
_REDUCTIONS: dict[str, Function] = {
    "max": torch.amax,
    "mean": torch.mean,
    "min": torch.amin,
    "std": lambda a, dim, keepdim: torch.std(a, dim, correction=0, keepdim=keepdim),
    "sum": torch.sum,
    "var": lambda a, dim, keepdim: torch.var(a, dim, correction=0, keepdim=keepdim),
}


def _elementwise(function: Function) -> Function:
    def call(*operands: Any, out: Tensor | None = None, **named: Any) -> Any:
        return _into(out, function(*operands, **named))

    return call


def _reduction(function: Function, torchs: Function, usual: int | None = None) -> Function:
    """A reduction over everything (axis=None) or over one axis, which stays with size 1 unless keepdims=False."""

    def call(a: Tensor, axis: Any = usual, out: Tensor | None = None, keepdims: bool = True, **torch_words: Any) -> Any:
        if torch_words:  # dim=, keepdim=: as torch has it
            return torchs(a, **torch_words)
        if axis is None:
            return _into(out, function(a.flatten(), dim=0, keepdim=False))
        return _into(out, function(a, dim=axis, keepdim=keepdims))

    return call


def _into(out: Tensor | None, result: Any) -> Any:
    if out is None:
        return result
    if not isinstance(out, Tensor):
        raise TypeError(f"out must be a tensor, to be filled, or None. {received('out', out)}")
    out[:] = result
    return out


def _rand(*shape: Any, **given: Any) -> Tensor:
    """Numbers in [0, 1). The documented framework's takes its shape from what it is assigned to; a tensor is one."""
    if not shape and "size" not in given:
        raise TypeError(
            "be.rand needs a shape: here it does not know what it is assigned to. Write be.rand(*x.shape), with x "
            "the tensor to fill."
        )
    return torch.rand(*shape, **{"device": "cpu", "dtype": torch.float32, **given})


FUNCTIONS: dict[str, Function] = {
    **{name: _elementwise(function) for name, function in _ELEMENTWISE.items()},
    **{name: _reduction(function, getattr(torch, name)) for name, function in _REDUCTIONS.items()},
    **{torchs.__name__: _reduction(torchs, torchs, usual=1) for torchs in (torch.argmax, torch.argmin)},
    "rand": _rand,
    "fill_normal": lambda a, mean=0, stdv=1: a.normal_(mean, stdv),
}
