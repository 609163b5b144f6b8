"""Orthogonal bases of symmetric matrices: eigenvectors, and one step of power iteration towards them."""

from __future__ import annotations

import torch
from torch import Tensor

from neon.engine.calls.one_by_one import each, without_bad

# SOAP adds it to the diagonal before the first decomposition: it orders the null vectors of a row that has been 0.
LEAST = 1e-30
# Shares of the largest element, for the diagonal of a matrix of which LAPACK finds no eigenvectors.
LIFTS = (0.0, 2.0**-40, 2.0**-20, 2.0**-10)


def eigenbasis(m: Tensor, floor: float = 0.0) -> Tensor:
    """The eigenvectors of symmetric matrices, as columns, of the largest eigenvalue first.

    `m` is of shape (n, s, s), float32 or float64, and of each matrix the lower triangle is read. Signs are LAPACK's.
    Null vectors, such as x·xᵀ has with more rows than columns, are any basis of their space: rounding chooses. With a
    `floor` above 0 they are those of diag(2 … 1) within their space, and bases differ by rounding alone; null is what
    rounding makes of 0, s·ε of the largest. Where LAPACK finds no eigenvectors, float64 is tried, and then more and
    more on the diagonal. A matrix with a NaN or an infinity has a basis of NaN; the others do not notice.
    """
    return each(lambda a: _eigenbasis(a, floor), m)


def _eigenbasis(m: Tensor, floor: float) -> Tensor:
    m, good = without_bad(m)
    m.diagonal().add_(LEAST)
    values, basis = decomposed(m)
    null = int((values <= len(m) * torch.finfo(m.dtype).eps * values[-1:]).sum()) if floor > 0 else 0
    if null:
        basis = _with_chosen(basis, null)
    return torch.where(good, basis.flip(1), torch.nan)


def _with_chosen(vectors: Tensor, null: int) -> Tensor:
    """Vectors of rising eigenvalues, of which the first, `null` ones, are those of diag(2 … 1) in their space."""
    space = vectors[:, :null].contiguous()
    falling = torch.linspace(2.0, 1.0, len(vectors), dtype=vectors.dtype, device=vectors.device)
    _, chosen = decomposed(space.T @ (falling.unsqueeze(1) * space))
    return torch.cat((space @ chosen, vectors[:, null:]), 1)


def decomposed(m: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, rising, and eigenvectors of one finite matrix; NaN where LAPACK finds none whatever is tried."""
    tried, largest = m, 0.0
    for lift in LIFTS:
        try:
            values, vectors = torch.linalg.eigh(tried)
            return values.to(m.dtype), vectors.to(m.dtype)
        except torch.linalg.LinAlgError:  # pyright: ignore[reportPrivateImportUsage]
            largest = largest or m.abs().max().item()
            tried = m.double() + lift * largest * torch.eye(len(m), dtype=torch.float64, device=m.device)
    return torch.full_like(m[0], torch.nan), torch.full_like(m, torch.nan)


def refined_basis(m: Tensor, basis: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor]:
    """One step of power iteration: the Q of QR of m·basis, and the old place of each of its columns.

    The columns stand by their Rayleigh quotients qᵀ·m·q, the largest first, and are made orthogonal in this order;
    equal ones keep theirs. What belongs to the columns of the old basis is indexed by the order, of int64 and shape (n,
    s). Directions in which m is 0 are filled by rounding, as SOAP's are. With a `floor` above 0 they stay where they
    were: the share `floor` of the largest quotient, and no less than rounding makes (64·s·ε, at most ⅛), times the old
    basis is added to m·basis.
    """
    return each(lambda a, q: _refined(a, q, floor), m, basis)


def refined_in_place(m: Tensor, basis: Tensor, floor: float = 0.0) -> Tensor:
    """`refined_basis`, each column in the place that it had: what belongs to the columns needs no new order."""
    refined, order = refined_basis(m, basis, floor)
    return torch.empty_like(refined).scatter_(2, order.unsqueeze(1).expand_as(refined), refined)


def _refined(m: Tensor, basis: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    product = m @ basis
    quotients = (basis * product).sum(0)
    if floor > 0 and len(m):
        noise = min(64 * len(m) * torch.finfo(m.dtype).eps, 0.125)
        product = product + max(floor, noise) * quotients.abs().max() * basis
    order = quotients.argsort(descending=True, stable=True)
    product, good = without_bad(product[:, order])
    return torch.where(good, torch.linalg.qr(product).Q, torch.nan), order
