"""RAdam (Liu et al. 2020): Adam that waits until its mean of squares can be relied on."""

from __future__ import annotations

import math

from neon.arguments import beta, non_negative, positive
from neon.engine.program.numbers import Number
from neon.optimizers.adam import averages
from neon.optimizers.functions import clip, maximum, sqrt, where
from neon.optimizers.optimizer import Optimizer


def rectification(beta2, step):  # type: ignore[no-untyped-def]
    """How many gradients a mean of squares is of, ρ, and r²; where ρ is below 5, where r is no number, that of 5."""
    power = beta2**step
    most = 2 / (1 - beta2) - 1
    length = most - 2 * step * power / (1 - power)
    most, least = maximum(most, 5), maximum(length, 5)
    return length, (least - 4) * (least - 2) * most / ((most - 4) * (most - 2) * least)


def _delta(g, exp_avg, exp_avg_sq, lr, betas, eps, step):  # type: ignore[no-untyped-def]
    """What RAdam subtracts from w, and the new states."""
    exp_avg, exp_avg_sq = averages(g, exp_avg, exp_avg_sq, betas)
    length, factor = rectification(betas[1], step)
    adapts, rectified = length > 5, sqrt(factor) * sqrt(1 - betas[1] ** step)
    # A choice within the loop would be made for each element: where nothing adapts, the root is clipped to 1.
    root = clip(sqrt(exp_avg_sq) + eps, where(adapts, 0.0, 1.0), where(adapts, math.inf, 1.0))
    return lr / (1 - betas[0] ** step) * where(adapts, rectified, 1.0) * exp_avg / root, exp_avg, exp_avg_sq


def radam(w, g, exp_avg, exp_avg_sq, *, lr, betas, eps, step):  # type: ignore[no-untyped-def]
    """One step of RAdam (Liu et al. 2020, algorithm 2, with torch's 5 in the place of 4).

        exp_avg, exp_avg_sq   as in Adam
        ρ∞ = 2/(1−β₂) − 1;  ρ = ρ∞ − 2t·β₂ᵗ/(1−β₂ᵗ);  r = √((ρ−4)(ρ−2)·ρ∞ / ((ρ∞−4)(ρ∞−2)·ρ))
        w ← w − lr · exp_avg/(1−β₁ᵗ) · r·√(1−β₂ᵗ) / (√exp_avg_sq + ε)   where ρ > 5
        w ← w − lr · exp_avg/(1−β₁ᵗ)                                    else

    `step` is t, the number of this update of the tensor, from 1. For β₂ of 0.9 and more ρ is above 5 from step 6 on.

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-8)
    >>> w, exp_avg, exp_avg_sq = radam(1.0, 0.5, 0.1, 0.2, **numbers, step=9)
    >>> round(w, 8), round(exp_avg, 8), round(exp_avg_sq, 8)
    (0.99790288, 0.14, 0.2005)
    >>> round(radam(1.0, 0.5, 0.1, 0.2, **numbers, step=3)[0], 8)
    0.94833948
    """
    delta, *states = _delta(g, exp_avg, exp_avg_sq, lr, betas, eps, step)
    return w - delta, *states


def radamw(w, g, exp_avg, exp_avg_sq, *, lr, betas, eps, weight_decay, step):  # type: ignore[no-untyped-def]
    """One step of RAdam whose weight decay does not pass through the averages: lr·λ·w is subtracted from w as well.

    >>> round(radamw(1.0, 0.5, 0.1, 0.2, lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, step=3)[0], 8)
    0.93833948
    """
    delta, *states = _delta(g, exp_avg, exp_avg_sq, lr, betas, eps, step)
    return w - (lr * weight_decay * w + delta), *states


class RAdam(Optimizer):
    """RAdam (Liu et al. 2020): momentum alone at first, Adam once the mean of squares is of enough gradients.

        θ' = θ − α m̂ · r√(1−β₂ᵗ) / (√v' + ε)  from the step on at which ρ > 5, before it θ' = θ − α m̂

    m̂ and v' are Adam's; ρ, how many gradients v' is of, and r are told in the rule. No warm-up of the rate is needed.
    The other options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(radam)
    learning_rate = Number(1e-3, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.999, beta, "betas[1]", "β₂ in [0, 1)")
    epsilon = Number(1e-8, positive, "eps", "ε > 0")
