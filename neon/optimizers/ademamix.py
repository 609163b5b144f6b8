"""AdEMAMix (Pagliardini, Ablin & Grangier 2024)."""

from __future__ import annotations

from neon.arguments import beta, non_negative, positive
from neon.engine.program.numbers import Number
from neon.optimizers.adam import averages
from neon.optimizers.functions import sqrt
from neon.optimizers.optimizer import Optimizer


def ademamix(w, g, exp_avg, exp_avg_slow, exp_avg_sq, *, lr, betas, alpha, eps, weight_decay, step):  # type: ignore[no-untyped-def]
    """One step of AdEMAMix (Pagliardini, Ablin & Grangier 2024, algorithm 1).

        exp_avg      ← β₁·exp_avg + (1−β₁)·g
        exp_avg_slow ← β₃·exp_avg_slow + (1−β₃)·g
        exp_avg_sq   ← β₂·exp_avg_sq + (1−β₂)·g²
        w            ← w − lr·((exp_avg/(1−β₁ᵗ) + α·exp_avg_slow) / (√(exp_avg_sq/(1−β₂ᵗ)) + ε) + λ·w)

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99, 0.999), alpha=5.0, eps=1e-8, weight_decay=0.1, step=3)
    >>> w, *states = ademamix(1.0, 0.5, 0.1, 0.4, 0.2, **numbers)
    >>> round(w, 8), [round(state, 8) for state in states]
    (0.89312099, [0.14, 0.4001, 0.2005])
    """
    beta1, beta2, beta3 = betas
    exp_avg, exp_avg_sq = averages(g, exp_avg, exp_avg_sq, (beta1, beta2))
    exp_avg_slow = beta3 * exp_avg_slow + (1 - beta3) * g
    quick, scale = 1 / (1 - beta1**step), 1 / sqrt(1 - beta2**step)  # two numbers for all elements
    update = (quick * exp_avg + alpha * exp_avg_slow) / (sqrt(exp_avg_sq) * scale + eps)
    return w - lr * (update + weight_decay * w), exp_avg, exp_avg_slow, exp_avg_sq


class AdEMAMix(Optimizer):
    """AdEMAMix (Pagliardini, Ablin & Grangier 2024): Adam that steps by a slow mean of gradients beside the quick one.

        θ' = θ − η((m̂₁ + αm₂) / (√v̂ + ε) + λθ)

    The paper raises α from 0, and β₃ from β₁, over the run; here they are numbers of the group, to be set as it goes.
    `wdecay` λ ≥ 0, decoupled. The other options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(ademamix)
    learning_rate = Number(1e-3, non_negative, "lr", "η ≥ 0")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1), of the quick mean")
    beta_2 = Number(0.999, beta, "betas[1]", "β₂ in [0, 1), of the squares")
    beta_3 = Number(0.9999, beta, "betas[2]", "β₃ in [0, 1), of the slow mean")
    alpha = Number(5.0, non_negative, meaning="α ≥ 0, the share of the slow mean")
    epsilon = Number(1e-8, positive, "eps", "ε > 0")
