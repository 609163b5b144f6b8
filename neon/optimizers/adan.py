"""Adan (Xie et al. 2022)."""

from __future__ import annotations

from neon.arguments import beta, flag, non_negative, positive
from neon.engine.program.numbers import Number
from neon.optimizers.functions import equal, sqrt, where
from neon.optimizers.optimizer import Optimizer


def adan(  # type: ignore[no-untyped-def]
    w, g, exp_avg, exp_avg_diff, exp_avg_sq, neg_pre_grad, *, lr, betas, eps, weight_decay, no_prox, step
):
    """One step of Adan (Xie et al. 2022, algorithm 1, with the corrections of the authors' code).

        d            ← g + neg_pre_grad                    0 in the first step
        exp_avg      ← β₁·exp_avg + (1−β₁)·g
        exp_avg_diff ← β₂·exp_avg_diff + (1−β₂)·d
        exp_avg_sq   ← β₃·exp_avg_sq + (1−β₃)·(g + β₂·d)²
        u            = (exp_avg/(1−β₁ᵗ) + β₂·exp_avg_diff/(1−β₂ᵗ)) / (√(exp_avg_sq/(1−β₃ᵗ)) + ε)
        w            ← (w − lr·u) / (1 + lr·λ)             or, with no_prox, (1 − lr·λ)·w − lr·u
        neg_pre_grad ← −g

    The paper's β are 1 − β here. `step` is t, the number of this update of the tensor, from 1.

    >>> numbers = dict(lr=0.1, betas=(0.98, 0.92, 0.99), eps=1e-8, weight_decay=0.1)
    >>> w, *states = adan(1.0, 0.5, 0.1, 0.3, 0.2, -0.25, **numbers, no_prox=False, step=3)
    >>> round(w, 8), [round(state, 8) for state in states]
    (0.87404149, [0.108, 0.296, 0.203329, -0.5])
    >>> round(adan(1.0, 0.5, 0.1, 0.3, 0.2, -0.25, **numbers, no_prox=True, step=3)[0], 8)
    0.8727819
    >>> [round(value, 8) for value in adan(1.0, 0.5, 0.0, 0.0, 0.0, 0.0, **numbers, no_prox=True, step=1)]
    [0.89, 0.01, 0.0, 0.0025, -0.5]
    """
    beta1, beta2, beta3 = betas
    change = where(equal(step, 1), 0.0, 1.0) * (g + neg_pre_grad)  # a number, for there is no gradient of before
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_avg_diff = beta2 * exp_avg_diff + (1 - beta2) * change
    ahead = g + beta2 * change
    exp_avg_sq = beta3 * exp_avg_sq + (1 - beta3) * ahead * ahead
    # Three numbers for all elements, and a fourth below.
    mean, slope, scale = 1 / (1 - beta1**step), beta2 / (1 - beta2**step), 1 / sqrt(1 - beta3**step)
    u = (mean * exp_avg + slope * exp_avg_diff) / (sqrt(exp_avg_sq) * scale + eps)
    # One rounding of w: (w − lr·u) / (1 + lr·λ) is w − (lr·λ·w + lr·u) / (1 + lr·λ).
    kept = 1.0 if no_prox else 1 / (1 + lr * weight_decay)
    return w - (kept * lr * weight_decay * w + kept * lr * u), exp_avg, exp_avg_diff, exp_avg_sq, -g


class Adan(Optimizer):
    """Adan (Xie et al. 2022): Adam with Nesterov's look ahead, by a mean of how gradients change.

        m' = β₁m + (1−β₁)g;  v' = β₂v + (1−β₂)(g − g₋₁);  n' = β₃n + (1−β₃)(g + β₂(g − g₋₁))²
        θ' = (θ − α(m̂ + β₂v̂) / (√n̂ + ε)) / (1 + αλ)

    g₋₁ is the gradient of the tensor's last update; t counts these. `wdecay` λ ≥ 0; with `no_prox` it is AdamW's decay.
    The authors clip by norm besides where `max_grad_norm` is given: `gradient_clip_norm`. g₋₁ is kept with its sign
    turned: exactly in 16 bits where gradients have as many and are not clipped, in 8 bits to a sixteenth. The other
    options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(adan)
    learning_rate = Number(1e-3, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.98, beta, "betas[0]", "β₁ in [0, 1), of gradients")
    beta_2 = Number(0.92, beta, "betas[1]", "β₂ in [0, 1), of their changes")
    beta_3 = Number(0.99, beta, "betas[2]", "β₃ in [0, 1), of the squares")
    epsilon = Number(1e-8, positive, "eps", "ε > 0")
    wdecay = Number(0.0, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    no_prox = Number(False, flag, meaning="(1 − αλ)θ in place of a division by 1 + αλ")
