"""StableAdamW (Wortsman et al. 2023)."""

from __future__ import annotations

from neon.arguments import beta, flag, non_negative, positive
from neon.engine.program.numbers import Number
from neon.optimizers.functions import maximum, rms, sqrt
from neon.optimizers.optimizer import Optimizer


def stableadamw(  # type: ignore[no-untyped-def]
    w, g, exp_avg, exp_avg_sq, *, lr, betas, eps, d, weight_decay, decouple, clip_decay, step
):
    """One step of StableAdamW (Wortsman et al. 2023, algorithm 2).

        exp_avg    ← (1−a)·exp_avg + a·g,      a = (1−β₁)/(1−β₁ᵗ): Adam's corrected mean
        exp_avg_sq ← (1−b)·exp_avg_sq + b·g²,  b = (1−β₂)/(1−β₂ᵗ)
        r          = max(1, rms(g / max(√exp_avg_sq, ε)) / d) over the whole tensor
        w          ← w − lr/r·(exp_avg / (√exp_avg_sq + ε) + λ·w)

    `step` is t. Without `clip_decay` the decay is lr·λ·w, of a rate that is not divided. Without `decouple` λ·w is
    added to g, and nothing beside it.

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-6, d=1.0, weight_decay=0.1, step=3)
    >>> w, exp_avg, exp_avg_sq = stableadamw(1.0, 2.0, 0.1, 0.2, **numbers, decouple=True, clip_decay=True)
    >>> round(w, 8), round(exp_avg, 8), round(exp_avg_sq, 8)
    (0.95386312, 0.80110701, 1.4794182)
    >>> round(stableadamw(1.0, 2.0, 0.1, 0.2, **numbers, decouple=True, clip_decay=False)[0], 8)
    0.94994468
    >>> round(stableadamw(1.0, 2.0, 0.1, 0.2, **numbers, decouple=False, clip_decay=True)[0], 8)
    0.96009492
    """
    share, share_sq = ((1 - kept) / (1 - kept**step) for kept in betas)  # two numbers for all elements
    if not decouple:
        g = g + weight_decay * w
    exp_avg = (1 - share) * exp_avg + share * g
    exp_avg_sq = (1 - share_sq) * exp_avg_sq + share_sq * g * g
    root = sqrt(exp_avg_sq)
    rate = lr / maximum(1, rms(g / maximum(root, eps)) / d)
    delta = rate * exp_avg / (root + eps)
    if decouple:
        delta = (rate if clip_decay else lr) * weight_decay * w + delta  # one rounding of w, as in AdamW
    return w - delta, exp_avg, exp_avg_sq


class StableAdamW(Optimizer):
    """StableAdamW (Wortsman et al. 2023): AdamW that steps less where gradients are larger than their mean square says.

        θ' = θ − η(m̂ / (√v̂ + ε) + λθ),  η = α / max(1, rms(g / max(√v̂, ε)) / d)

    The states are m̂ and v̂ themselves. optimi and pytorch_optimizer have this with d = 1, the latter with ε = 1e-8.
    `wdecay` λ ≥ 0: for optimi's `decouple_lr` divide it by the largest rate. The authors' code, unlike the paper, takes
    α for η in the decay: `clip_decay=False`; there d is `clip_thresh`. With `decouple=False` the decay passes through
    the averages. The other options are `Optimizer`'s. Raises as that does.
    """

    rule = staticmethod(stableadamw)
    learning_rate = Number(1e-3, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.99, beta, "betas[1]", "β₂ in [0, 1)")
    epsilon = Number(1e-6, positive, "eps", "ε > 0")
    d = Number(1.0, positive, meaning="d > 0, the rms from which on the rate is divided")
    wdecay = Number(0.01, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    decouple = Number(True, flag, meaning="whether the decay does not pass through the averages")
    clip_decay = Number(True, flag, meaning="whether the rate of the decay is divided too")
