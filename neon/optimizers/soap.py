"""SOAP (Vyas et al. 2024)."""

from __future__ import annotations

from neon.optimizers.functions import equal, maximum, remainder, sqrt
from neon.optimizers.matrix_functions import basis_of, gram, restored, rotated


def soap(  # type: ignore[no-untyped-def]
    w, g, exp_avg, exp_avg_sq, left=0.0, right=0.0, left_basis=0.0, right_basis=0.0,
    *, lr, betas, eps, weight_decay, shampoo_beta, every,
    correct_bias=True, heavyballs=False, floor=0.0, rotate_rows, rotate_columns, step,
):  # fmt: skip
    """One step of SOAP (Vyas et al. 2024, algorithm 3): Adam in the eigenbases of Shampoo.

        turned     = Uᵀ·g·V,  U, V = left_basis, right_basis
        exp_avg    ← β₁·exp_avg + (1−β₁)·g
        exp_avg_sq ← β₂·exp_avg_sq + (1−β₂)·turned²
        u          = U·(Uᵀ·exp_avg·V / (√exp_avg_sq + ε))·Vᵀ · √(1−β₂ⁿ)/(1−β₁ⁿ)
        w          ← (w − lr·u)·(1 − lr·λ)
        left       ← σ·left + (1−σ)·g·gᵀ;   right ← σ·right + (1−σ)·gᵀ·g
        U          ← the Q of QR of left·U, and V likewise, every k steps

    As in the authors' program the first step of a tensor changes `left` and `right` alone and makes U and V of them, by
    their eigenvectors; n = `step` − 1 counts the others. With `heavyballs` four things are as heavyball has them: ε is
    the least denominator, max(√(exp_avg_sq/(1−β₂ⁿ)), ε); w ← w − lr·(u + λ·w); σ at step t is 1 − (1−σ)/(1−σᵗ); and the
    first step is one of the k. Without a `floor` rounding chooses a basis of directions that had no gradient, and all
    but square matrices have them at first: weights then differ between processors by whole steps. A `floor` above 0
    chooses it, and keeps it in QR as heavyball does with ε for it. A side of which `rotate_rows` or `rotate_columns` is
    False has no basis.
    """
    first, n = equal(step, 1), maximum(step - 1, 1)
    later, due = 1 - first, equal(remainder(step if heavyballs else step - 1, every), 0)
    sides = (left_basis if rotate_rows else None, right_basis if rotate_columns else None)
    exp_avg = exp_avg + later * (1 - betas[0]) * (g - exp_avg)
    exp_avg_sq = exp_avg_sq + later * (1 - betas[1]) * (rotated(g, *sides) ** 2 - exp_avg_sq)
    unbiased = (1 - betas[0] ** n, sqrt(1 - betas[1] ** n)) if correct_bias else (1, 1)
    root = maximum(sqrt(exp_avg_sq), eps * unbiased[1]) if heavyballs else sqrt(exp_avg_sq) + eps
    u = lr * unbiased[1] / unbiased[0] * restored(rotated(exp_avg, *sides) / root, *sides)
    w = w - later * (u + lr * weight_decay * (w if heavyballs else w - u))
    kept = 1 - (1 - shampoo_beta) / (1 - shampoo_beta**step) if heavyballs else shampoo_beta
    if rotate_rows:
        left = kept * left + (1 - kept) * gram(g, "rows")
        left_basis = basis_of(left, left_basis, first, due, floor)
    if rotate_columns:
        right = kept * right + (1 - kept) * gram(g, "columns")
        right_basis = basis_of(right, right_basis, first, due, floor)
    return w, exp_avg, exp_avg_sq, left, right, left_basis, right_basis
