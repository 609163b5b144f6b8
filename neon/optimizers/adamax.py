"""AdaMax (Kingma & Ba 2015): Adam with the largest gradient in the place of the mean of squares."""

from __future__ import annotations

from neon.arguments import beta, non_negative, positive
from neon.engine.program.numbers import Number
from neon.optimizers.functions import maximum
from neon.optimizers.optimizer import Optimizer


def adamax(w, g, exp_avg, exp_inf, *, lr, betas, eps, step):  # type: ignore[no-untyped-def]
    """One step of AdaMax (Kingma & Ba 2015, algorithm 2, with torch's ε).

        exp_avg ← β₁·exp_avg + (1−β₁)·g
        exp_inf ← max(β₂·exp_inf, |g| + ε)
        w       ← w − lr/(1−β₁ᵗ) · exp_avg/exp_inf

    `step` is t, the number of this update of the tensor, from 1.

    >>> w, exp_avg, exp_inf = adamax(1.0, 0.5, 0.1, 0.2, lr=0.1, betas=(0.9, 0.99), eps=0.01, step=3)
    >>> round(w, 8), round(exp_avg, 8), exp_inf
    (0.89870487, 0.14, 0.51)
    """
    beta1, beta2 = betas
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_inf = maximum(beta2 * exp_inf, abs(g) + eps)
    return w - lr / (1 - beta1**step) * exp_avg / exp_inf, exp_avg, exp_inf


class AdaMax(Optimizer):
    """AdaMax (Kingma & Ba 2015): steps go by the largest gradient of late, which shrinks by β₂ in each step.

        m' = β₁m + (1−β₁)g;  u' = max(β₂u, |g| + ε);  θ' = θ − α/(1−β₁ᵗ) · m'/u'

    The other options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(adamax)
    learning_rate = Number(2e-3, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.999, beta, "betas[1]", "β₂ in [0, 1)")
    epsilon = Number(1e-8, positive, "eps", "ε > 0")
