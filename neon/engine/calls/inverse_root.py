"""Inverse roots of symmetric matrices."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from neon.engine.calls.eigenbasis import decomposed
from neon.engine.calls.one_by_one import each, without_bad


def inverse_root(m: Tensor, exponent: float, epsilon: float, of: Literal["one", "largest", "least"] = "one") -> Tensor:
    """(m + ε·I)^(−1/exponent) of symmetric positive semidefinite matrices, of shape (n, s, s), by their eigenvalues.

    ε = `epsilon` is added to each eigenvalue, and what rounding left below 0 counts as 0. `of="one"`: as it stands,
    which is Shampoo's (Gupta et al. 2018), whose sums begin at ε·I. `of="largest"`: times the largest eigenvalue (Anil
    et al. 2020). `of="least"`: as it stands, above the least eigenvalue where that is negative (Shi et al. 2023). A
    direction of eigenvalue 0 without ε has root 0, not infinity; a matrix of zeros has the identity. A matrix with a
    NaN or an infinity has a root of NaN; the others do not notice.
    """
    if of not in ("one", "largest", "least"):
        raise ValueError(f"of must be 'one', 'largest' or 'least'. Received: of={of!r}.")
    return each(lambda a: _inverse_root(a, exponent, epsilon, of), m)


def _inverse_root(m: Tensor, exponent: float, epsilon: float, of: str) -> Tensor:
    m, good = without_bad(m)
    values, vectors = decomposed(m)
    if of == "least":
        values = values - values[:1].clamp(max=0.0)
    values = values.clamp(min=0.0)
    values = values + epsilon * (values[-1:] if of == "largest" else 1.0)
    # Half of the root on each side, for symmetry; in float64, of which float32 keeps what processors have in common.
    nothing = torch.where(values[-1:] > 0, 0.0, 1.0).double()
    half = torch.where(values > 0, values.double() ** (-0.5 / exponent), nothing).to(m.dtype)
    vectors = vectors * half
    return torch.where(good, vectors @ vectors.T, torch.nan)
