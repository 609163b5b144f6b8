"""SOAP (Vyas et al. 2024)."""

from __future__ import annotations

from neon.arguments import beta, flag, non_negative, positive_integer
from neon.engine.program.declared import State
from neon.engine.program.numbers import Number
from neon.engine.program.spaces import COLUMN_PAIRS, COLUMNS, ROW_PAIRS, ROWS
from neon.optimizers.functions import equal, maximum, remainder, sqrt
from neon.optimizers.matrix_functions import basis_of, gram, restored, rotated
from neon.optimizers.optimizer import Optimizer


def soap(  # type: ignore[no-untyped-def]
    w, g, exp_avg, exp_avg_sq, left=State(of=ROW_PAIRS), right=State(of=COLUMN_PAIRS),
    left_basis=State(1.0, of=ROW_PAIRS), right_basis=State(1.0, of=COLUMN_PAIRS),
    *, lr, betas, eps, weight_decay, shampoo_beta, frequency,
    correct_bias=True, heavyball=False, floor=1e-8, few_rows, few_columns, step,
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
    their eigenvectors; n = `step` − 1 counts the others. With `heavyball` four things are as heavyball has them: ε is
    the least denominator, max(√(exp_avg_sq/(1−β₂ⁿ)), ε); w ← w − lr·(u + λ·w); σ at step t is 1 − (1−σ)/(1−σᵗ); and the
    first step is one of the k. Without a `floor` rounding chooses a basis of directions that had no gradient, and all
    but square matrices have them at first: weights then differ between processors by whole steps. A `floor` above 0
    chooses it, and keeps it in QR as heavyball does with ε for it. A side of which `few_rows` or `few_columns` is False
    has no basis.

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=0.5, weight_decay=0.5, shampoo_beta=0.9, frequency=2,
    ...                few_rows=True, few_columns=True)
    >>> w, *states = soap(2.0, 0.5, 0.1, 0.2, 0.3, 0.4, 1.0, -1.0, **numbers, step=3)
    >>> round(w, 8), [round(state, 8) for state in states]
    (1.88958113, [0.14, 0.2005, 0.295, 0.385, 1.0, 1.0])
    >>> round(soap(2.0, 0.5, 0.1, 0.2, 0.3, 0.4, 1.0, -1.0, **numbers, step=3, heavyball=True)[0], 8)
    1.87678633
    >>> w, *states = soap(2.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, **numbers, step=1)
    >>> w, [round(state, 8) for state in states]
    (2.0, [0.0, 0.0, 0.025, 0.025, 1.0, 1.0])
    """
    first, n = equal(step, 1), maximum(step - 1, 1)
    later, due = 1 - first, equal(remainder(step if heavyball else step - 1, frequency), 0)
    sides = (left_basis if few_rows else None, right_basis if few_columns else None)
    fresh = later * (1 - betas[0]), later * (1 - betas[1])
    exp_avg = (1 - fresh[0]) * exp_avg + fresh[0] * g
    exp_avg_sq = (1 - fresh[1]) * exp_avg_sq + fresh[1] * rotated(g, *sides) ** 2
    unbiased = (1 - betas[0] ** n, sqrt(1 - betas[1] ** n)) if correct_bias else (1, 1)
    root = maximum(sqrt(exp_avg_sq), eps * unbiased[1]) if heavyball else sqrt(exp_avg_sq) + eps
    u = lr * unbiased[1] / unbiased[0] * restored(rotated(exp_avg, *sides) / root, *sides)
    w = w - later * (u + lr * weight_decay * (w if heavyball else w - u))
    kept = 1 - (1 - shampoo_beta) / (1 - shampoo_beta**step) if heavyball else shampoo_beta
    if few_rows:
        left = kept * left + (1 - kept) * gram(g, ROWS)
        left_basis = basis_of(left, left_basis, first, due, floor)
    if few_columns:
        right = kept * right + (1 - kept) * gram(g, COLUMNS)
        right_basis = basis_of(right, right_basis, first, due, floor)
    return w, exp_avg, exp_avg_sq, left, right, left_basis, right_basis


class SOAP(Optimizer):
    """SOAP (Vyas et al. 2024): Adam in the eigenbases U, V of averages of ggᵀ and gᵀg, which Shampoo takes roots of.

        m' = β₁m + (1−β₁)g;  v' = β₂v + (1−β₂)(UᵀgV)²;  u = U·(Uᵀm'V / (√v' + ε))·Vᵀ · √(1−β₂ⁿ)/(1−β₁ⁿ)
        θ' = (θ − αu)(1 − αλ);  L' = σL + (1−σ)ggᵀ;  R' = σR + (1−σ)gᵀg;  every k steps U' = Q of QR of L'U, V' likewise

    The first step of a tensor makes L, R and their eigenvectors, and changes no weight; n counts the others. A side of
    more than `max_size` has no basis: what is left is Adam along it, and Adam alone where both are longer, or the
    tensor is no matrix. A convolution is the matrix of its first dimension by all others. The columns of U keep their
    places from step to step, where the authors' program sorts them, and v with them: the steps are the same. The
    defaults are theirs, but for the `floor`: with 0, as they have it, rounding chooses a basis of directions that had
    no gradient, and weights differ between processors by whole steps. `heavyball` has four things as the package of
    that name: ε is the least denominator, decay is not of the new weight, σ is corrected for its start, and the first
    step is one of the k. The other options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    of_matrices = True
    rule = staticmethod(soap)
    learning_rate = Number(3e-3, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.95, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.95, beta, "betas[1]", "β₂ in [0, 1)")
    epsilon = Number(1e-8, non_negative, "eps", "ε ≥ 0")
    wdecay = Number(0.01, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    shampoo_beta = Number(0.95, beta, meaning="σ in [0, 1)")
    frequency = Number(10, positive_integer, meaning="k: how many steps a basis stays")
    max_size = Number(10000, positive_integer, meaning="the longest side that has a basis")
    floor = Number(1e-8, non_negative, meaning="the share of the largest eigenvalue that holds null directions")
    correct_bias = Number(True, flag, meaning="whether √(1−β₂ⁿ)/(1−β₁ⁿ) is a factor")
    heavyball = Number(False, flag, meaning="as the package heavyball has it")
