"""LAMB (You et al. 2020)."""

from __future__ import annotations

from neon.arguments import beta, flag, non_negative, positive
from neon.engine.program.numbers import Number
from neon.optimizers.adam import averages, direction
from neon.optimizers.functions import equal, minimum, norm, where
from neon.optimizers.optimizer import Optimizer


def lamb(w, g, exp_avg, exp_avg_sq, *, lr, betas, eps, weight_decay, trust_clip, step):  # type: ignore[no-untyped-def]
    """One step of LAMB (You et al. 2020, algorithm 2).

        exp_avg, exp_avg_sq   as in Adam
        u ← exp_avg/(1−β₁ᵗ) / (√(exp_avg_sq/(1−β₂ᵗ)) + ε) + λ·w
        w ← w − lr·r·u,  r = ‖w‖/‖u‖ over the whole tensor; 1 where one of the norms is 0

    `trust_clip` bounds r by 1.

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1, step=3)
    >>> w, *states = lamb(2.0, 0.5, 0.1, 0.2, **numbers, trust_clip=False)
    >>> round(w, 8), [round(state, 8) for state in states]
    (1.8, [0.14, 0.2005])
    >>> round(lamb(2.0, 0.5, 0.1, 0.2, **numbers, trust_clip=True)[0], 8)
    1.96011677
    >>> lamb(0.0, 0.5, 0.1, 0.2, **numbers, trust_clip=False)[0] < 0
    True
    """
    exp_avg, exp_avg_sq = averages(g, exp_avg, exp_avg_sq, betas)
    u = direction(exp_avg, exp_avg_sq, betas, eps, step) + weight_decay * w
    size, length = norm(w), norm(u)
    ratio = where(equal(size, 0), 1, where(equal(length, 0), 1, size / where(equal(length, 0), 1, length)))
    if trust_clip:
        ratio = minimum(ratio, 1)
    return w - lr * ratio * u, exp_avg, exp_avg_sq


class LAMB(Optimizer):
    """LAMB (You et al. 2020): Adam whose step in each tensor is as long as a share of the tensor, for large batches.

        θ' = θ − α·(‖θ‖/‖u‖)·u,  u = m̂ / (√v̂ + ε) + λθ

    The ratio is 1 where a norm is 0. `wdecay` λ ≥ 0. timm clips by norm besides: `gradient_clip_norm=1.0`. The other
    options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(lamb)
    learning_rate = Number(1e-3, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.999, beta, "betas[1]", "β₂ in [0, 1)")
    epsilon = Number(1e-6, positive, "eps", "ε > 0")
    wdecay = Number(0.01, non_negative, "weight_decay", "λ ≥ 0, within u")  # type: ignore[assignment]
    trust_clip = Number(False, flag, meaning="whether the ratio is at most 1")
