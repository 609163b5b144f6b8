"""The functions of whole matrices that a rule may call: each takes tensors and symbols alike.

Of a tensor of more than two dimensions the matrix is that of its first by all others, or what `parts` says. What they
give are tensors of elements again, or a number for each pair of rows or of columns, with which rules compute among
themselves and by numbers alone. `when` is a number of the step: where it is 0 nothing is computed.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from neon.engine.calls.called import CALLS
from neon.engine.program.spaces import COLUMN_PAIRS, COLUMNS, ELEMENT, ROW_PAIRS, ROWS, Space
from neon.engine.program.symbols import Symbol, call

__all__ = ["basis_of", "gram", "orthogonalize", "restored", "root_of", "rotated"]

# A rule is one function for floats, tensors and symbols; its values are therefore typed as Any.
Value = Any


def orthogonalize(
    x: Value,
    coefficients: Any = "simple",
    *,
    eps: Value = 1e-7,
    steps: Value = 5,
    scale: str | None = None,
    units: str | None = None,
) -> Value:
    """Each matrix of x with singular values near 1: s·p(x/max(‖x‖, ε)), p a polynomial of odd powers of x.

    p is a step aX + b(XXᵀ)X + c(XXᵀ)²X taken `steps` times, with (a, b, c) out of `coefficients`, the name of a
    schedule or three numbers for each step; a shorter schedule goes on. s is a factor by rows and columns, by the name
    `scale`. `units` says for what kind of processor the way there is chosen: None for the one at hand.
    """
    name, numbers = (coefficients, ()) if isinstance(coefficients, str) else (None, tuple(coefficients))
    numbers = (eps, steps, *numbers)
    return _called("orthogonalize", ELEMENT, (x,), *numbers, coefficients=name, scale=scale, units=units)


def gram(x: Value, over: Space) -> Value:
    """x·xᵀ, a number for each pair of ROWS, or xᵀ·x, one for each pair of COLUMNS."""
    if over not in (ROWS, COLUMNS):
        raise TypeError(f"over must be ROWS or COLUMNS, of neon.optimizers. Received: over={over!r}.")
    return _called("gram", ROW_PAIRS if over is ROWS else COLUMN_PAIRS, (x,), over=str(over))


def rotated(x: Value, left: Value = None, right: Value = None) -> Value:
    """leftᵀ·x·right, x in the bases that are the columns of `left` and `right`; a side of None stays as it is."""
    return _turned("rotated", x, left, right)


def restored(x: Value, left: Value = None, right: Value = None) -> Value:
    """left·x·rightᵀ, the way back of `rotated`; of symmetric matrices both are the same."""
    return _turned("restored", x, left, right)


def basis_of(m: Value, basis: Value, first: Value, when: Value, floor: Value = 0.0) -> Value:
    """The eigenvectors of a symmetric m at `first`, the largest eigenvalue's first; later one step towards them.

    That is the Q of the QR decomposition of m·basis, taken `when` that is not 0, each column in the place that it had.
    A `floor` above 0 keeps directions in which m is 0 where they are.
    """
    return _called("basis_of", _space(m), (m, basis), first, when, floor)


def root_of(m: Value, root: Value, exponent: Value, eps: Value, when: Value, of: str = "one") -> Value:
    """(m + ε·I)^(−1/exponent) of a symmetric m, `when` that is not 0; else `root`.

    `of`: "one", "largest" for ε times the largest eigenvalue, "least" for ε above a negative one.
    """
    return _called("root_of", _space(m), (m, root), exponent, eps, when, place=of)


def _turned(name: str, x: Value, left: Value, right: Value) -> Value:
    bases = [basis for basis in (left, right) if basis is not None]
    if not bases:
        return x
    return _called(name, ELEMENT, (x, *bases), left=left is not None, right=right is not None)


def _space(m: Value) -> Space:
    """That of pairs: of tensors, which have none, any."""
    return m.node.space if isinstance(m, Symbol) else ROW_PAIRS


def _called(name: str, of: Space, matrices: tuple[Value, ...], *numbers: Value, **choices: Any) -> Value:
    if any(isinstance(x, Symbol) for x in (*matrices, *numbers)):
        return call(name, of, *matrices, *numbers, **choices)
    first = matrices[0]
    found = CALLS[name].function(*map(_stack, matrices), *map(float, numbers), **choices)
    if not isinstance(first, Tensor):
        return found.item()
    return found.view(first.shape) if of is ELEMENT else found.squeeze(0)


def _stack(x: Value) -> Tensor:
    """A matrix alone; a float is one of one element."""
    x = x if isinstance(x, Tensor) else torch.tensor(x, dtype=torch.float64)
    return x.reshape(1, *(x.shape[:1] or (1,)), math.prod(x.shape[1:]))
