"""NAdam (Dozat 2016): Adam with Nesterov's momentum."""

from __future__ import annotations

from neon.arguments import beta, non_negative, positive
from neon.engine.program.declared import State
from neon.engine.program.numbers import Number
from neon.engine.program.spaces import TENSOR
from neon.optimizers.adam import averages
from neon.optimizers.functions import sqrt
from neon.optimizers.optimizer import Optimizer


def _delta(g, exp_avg, exp_avg_sq, mu_product, lr, betas, eps, momentum_decay, step):  # type: ignore[no-untyped-def]
    """What NAdam subtracts from w, and the new states."""
    exp_avg, exp_avg_sq = averages(g, exp_avg, exp_avg_sq, betas)
    mu, following = (betas[0] * (1 - 0.5 * 0.96 ** (t * momentum_decay)) for t in (step, step + 1))
    mu_product = mu_product * mu
    of_gradient, of_average = lr * (1 - mu) / (1 - mu_product), lr * following / (1 - mu_product * following)
    scale = 1 / sqrt(1 - betas[1] ** step)
    delta = (of_gradient * g + of_average * exp_avg) / (sqrt(exp_avg_sq) * scale + eps)
    return delta, exp_avg, exp_avg_sq, mu_product


def nadam(  # type: ignore[no-untyped-def]
    w, g, exp_avg, exp_avg_sq, mu_product=State(1.0, of=TENSOR), *, lr, betas, eps, momentum_decay, step
):
    """One step of NAdam (Dozat 2016, algorithm 2, with the schedule of momenta that torch has).

        exp_avg, exp_avg_sq   as in Adam
        μₜ         = β₁·(1 − ½·0.96^(t·ψ))
        mu_product ← mu_product·μₜ, one number of the tensor, from 1
        w          ← w − lr · ((1−μₜ)/(1−mu_product)·g + μₜ₊₁/(1−mu_product·μₜ₊₁)·exp_avg) / (√(exp_avg_sq/(1−β₂ᵗ)) + ε)

    `momentum_decay` is ψ; `step` is t, the number of this update of the tensor, from 1.

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-8, momentum_decay=0.004, step=3)
    >>> w, exp_avg, exp_avg_sq, mu_product = nadam(1.0, 0.5, 0.1, 0.2, 0.25, **numbers)
    >>> round(w, 8), round(exp_avg, 8), round(exp_avg_sq, 8), round(mu_product, 8)
    (0.98552221, 0.14, 0.2005, 0.1125551)
    """
    delta, *states = _delta(g, exp_avg, exp_avg_sq, mu_product, lr, betas, eps, momentum_decay, step)
    return w - delta, *states


def nadamw(  # type: ignore[no-untyped-def]
    w, g, exp_avg, exp_avg_sq, mu_product=State(1.0, of=TENSOR), *, lr, betas, eps, weight_decay, momentum_decay, step
):
    """One step of NAdam whose weight decay does not pass through the averages: lr·λ·w is subtracted from w as well.

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, momentum_decay=0.004, step=3)
    >>> round(nadamw(1.0, 0.5, 0.1, 0.2, 0.25, **numbers)[0], 8)
    0.97552221
    """
    delta, *states = _delta(g, exp_avg, exp_avg_sq, mu_product, lr, betas, eps, momentum_decay, step)
    return w - (lr * weight_decay * w + delta), *states


class NAdam(Optimizer):
    """NAdam (Dozat 2016): Adam that goes on along the momentum of the step to come.

        μₜ = β₁(1 − ½·0.96^(tψ));  Πₜ = μ₁·…·μₜ
        θ' = θ − α · ((1−μₜ)g/(1−Πₜ) + μₜ₊₁m'/(1−Πₜμₜ₊₁)) / (√(v'/(1−β₂ᵗ)) + ε)

    m' and v' are Adam's. Keras has ψ = 1; other libraries have other rules of this name. The other options are
    `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(nadam)
    learning_rate = Number(2e-3, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.999, beta, "betas[1]", "β₂ in [0, 1)")
    epsilon = Number(1e-8, positive, "eps", "ε > 0")
    momentum_decay = Number(4e-3, non_negative, meaning="ψ ≥ 0: how soon the momentum comes to β₁")
