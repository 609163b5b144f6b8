"""What rules of whole matrices call, on one matrix or a stack of equal ones: (rows, columns) or (n, rows, columns).

`when` is a number of the step, 1 or 0: where it is 0 nothing is computed.
"""

from __future__ import annotations

from typing import Any

from neon.engine.calls import eigenbasis as bases
from neon.engine.calls import inverse_root as roots
from neon.engine.calls import products

# A rule is one function for tensors and symbols; its values are therefore typed as Any.
Value = Any


def _stack(x: Value) -> Value:
    return None if x is None else x.reshape(-1, *x.shape[-2:])


def gram(g: Value, over: Any) -> Value:
    """g·gᵀ, a number for each pair of "rows", or gᵀ·g for each pair of "columns"."""
    found = products.gram(_stack(g), over)
    return found.reshape(*g.shape[:-2], *found.shape[-2:])


def rotated(x: Value, left: Value = None, right: Value = None) -> Value:
    """leftᵀ·x·right; a side of None stays as it is."""
    return products.rotated(_stack(x), _stack(left), _stack(right)).reshape(x.shape)


def restored(x: Value, left: Value = None, right: Value = None) -> Value:
    """left·x·rightᵀ, the way back; of symmetric matrices what `rotated` is too."""
    return products.restored(_stack(x), _stack(left), _stack(right)).reshape(x.shape)


def basis_of(m: Value, basis: Value, first: float, when: float, floor: float = 0.0) -> Value:
    """The eigenvectors of m at `first`; one step of power iteration from `basis` `when`; else `basis`."""
    if first:
        return bases.eigenbasis(_stack(m), floor).reshape(m.shape)
    if when:
        return bases.refined_in_place(_stack(m), _stack(basis), floor).reshape(m.shape)
    return basis


def root_of(m: Value, root: Value, exponent: float, epsilon: float, of: Any, when: float) -> Value:
    """(m + ε·I)^(−1/exponent) `when`, else `root`."""
    if when:
        return roots.inverse_root(_stack(m), exponent, epsilon, of).reshape(m.shape)
    return root
