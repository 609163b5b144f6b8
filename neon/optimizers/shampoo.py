"""Shampoo (Gupta et al. 2018), with the length of another rule's step (Anil et al. 2020)."""

from __future__ import annotations

from neon.optimizers.functions import clip, equal, norm, remainder, sign, sqrt, where
from neon.optimizers.matrix_functions import gram, restored, root_of


def _grafted(g, square, graft, beta2, graft_eps):  # type: ignore[no-untyped-def]
    """The step whose length counts, and its squares."""
    if graft in ("adagrad", "rmsprop"):
        square = square + g * g if graft == "adagrad" else beta2 * square + (1 - beta2) * g * g
        return g / (sqrt(square) + graft_eps), square
    return sign(g) if graft == "sign" else g, square


def shampoo(  # type: ignore[no-untyped-def]
    w, g, momentum_buffer=0.0, graft_buffer=0.0, square=0.0, 
    left=State(of=ROW_PAIRS), right=State(of=COLUMN_PAIRS), left_root=State(of=ROW_PAIRS), right_root=State(of=COLUMN_PAIRS),
    *, lr, betas, eps, graft_eps, weight_decay, every, start, graft, eps_of="start",
    nesterov=False, decoupled=True, few_rows, few_columns, step,
):  # fmt: skip
    """One step of Shampoo (Gupta et al. 2018, algorithm 1) with grafting (Anil et al. 2020).

        left, right           ← β₂·left + (1−β₂)·g·gᵀ, β₂·right + (1−β₂)·gᵀ·g;  both begin at ε·I.  β₂ = 1: sums
        left_root, right_root ← left^(−1/4), right^(−1/4), every k steps; the identity before
        d                     = g (sgd), sign(g) (sign) or g / (√square + ε') (adagrad, rmsprop: sums or averages of g²)
        u                     = ‖d‖/‖left_root·g·right_root‖ · left_root·g·right_root
        momentum_buffer       ← β₁·momentum_buffer + u
        w                     ← w − lr·λ·w − lr·momentum_buffer; with Nesterov −lr·(β₁·momentum_buffer + u)

    Before step `start` the steps are those of d, with a momentum of their own, graft_buffer. With `graft="none"` u
    keeps its length. Without `decoupled` λ·w is added to u and d. A side of which `few_rows` or `few_columns` is
    False has no root; the other's exponent is then −1/2. Without either side u is d. ε·I fades as the averages go on;
    with `eps_of` "one" it is added at each root instead, with "largest" times the largest eigenvalue, with "least"
    above a negative one.
    """
    d, square = _grafted(g, square, graft, betas[1], graft_eps)
    ours, due = where(equal(betas[1], 1), 1, 1 - betas[1]), equal(remainder(step, every), 0)
    rooted, begun = clip(step - every + 1, 0, 1), clip(step - start + 1, 0, 1)
    exponent = 2 * (few_rows + few_columns)
    least = (eps * betas[1] ** step, "one") if eps_of == "start" else (eps, eps_of)
    if few_rows:
        left = betas[1] * left + ours * gram(g, ROWS)
        left_root = root_of(left, left_root, exponent, *least, due)
    if few_columns:
        right = betas[1] * right + ours * gram(g, COLUMNS)
        right_root = root_of(right, right_root, exponent, *least, due)
    roots = (left_root if few_rows else None, right_root if few_columns else None)
    u = rooted * restored(g, *roots) + (1 - rooted) * g if exponent else d
    u = u if graft == "none" else norm(d) / (norm(u) + 1e-16) * u
    u, d = (u, d) if decoupled else (u + weight_decay * w, d + weight_decay * w)
    momentum_buffer, graft_buffer = betas[0] * momentum_buffer + u, betas[0] * graft_buffer + d
    taken, fresh = begun * momentum_buffer + (1 - begun) * graft_buffer, begun * u + (1 - begun) * d
    w = w - lr * weight_decay * w if decoupled else w
    w = w - lr * (betas[0] * taken + fresh if nesterov else taken)
    return w, momentum_buffer, graft_buffer, square, left, right, left_root, right_root
