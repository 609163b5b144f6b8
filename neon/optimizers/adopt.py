"""ADOPT (Taniguchi et al. 2024)."""

from __future__ import annotations

import math
from typing import Any

from neon.arguments import beta, flag, non_negative, positive
from neon.engine.program.numbers import Number
from neon.optimizers.functions import equal, maximum, sqrt, where
from neon.optimizers.optimizer import Optimizer


def adopt(w, g, exp_avg, exp_avg_sq, *, lr, betas, eps, clip_exp, weight_decay, decouple, step):  # type: ignore[no-untyped-def]
    """One step of ADOPT (Taniguchi et al. 2024, algorithm 2).

        u          = g / max(√exp_avg_sq, ε), into [−c, c] with c = (t−1)^p
        exp_avg    ← β₁·exp_avg + (1−β₁)·u
        exp_avg_sq ← β₂·exp_avg_sq + (1−β₂)·g²             after it has divided; g² in the first step
        w          ← w − lr·exp_avg                        with `decouple` w − (lr·λ·w + lr·exp_avg)

    In the first step u is 0, and w stays as it is. `clip_exp` is p; None bounds nothing. Without `decouple` λ·w is
    added to g. `step` is t, the number of this update of the tensor, from 1.

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.1)
    >>> [round(value, 8) for value in adopt(1.0, 0.5, 0.1, 0.04, **numbers, clip_exp=0.25, decouple=True, step=9)]
    [0.96418207, 0.25817928, 0.0421]
    >>> [round(value, 8) for value in adopt(1.0, 0.5, 0.1, 0.04, **numbers, clip_exp=None, decouple=False, step=9)]
    [0.961, 0.39, 0.0432]
    >>> [round(value, 8) for value in adopt(1.0, 0.5, 0.0, 0.0, **numbers, clip_exp=0.25, decouple=True, step=1)]
    [1.0, 0.0, 0.25]
    """
    beta1, beta2 = betas
    if not decouple:
        g = g + weight_decay * w
    # Numbers, for a choice within the loop would be made for each element.
    first = equal(step, 1)
    least, fresh, acts = where(first, math.inf, eps), where(first, 1.0, 1 - beta2), where(first, 0.0, 1.0)
    divisor = maximum(sqrt(exp_avg_sq), least)
    if clip_exp is not None:
        # In place of a bound on u: an infinite g makes NaN, as in other rules, and does not vanish in the bound.
        divisor = maximum(divisor, abs(g) * (acts / maximum(step - 1, 1) ** clip_exp))
    exp_avg = beta1 * exp_avg + (1 - beta1) * (g / divisor)
    exp_avg_sq = beta2 * exp_avg_sq + fresh * g * g
    delta = lr * exp_avg
    if decouple:
        delta = lr * acts * weight_decay * w + delta  # one rounding of w, as in AdamW
    return w - delta, exp_avg, exp_avg_sq


def optional_exponent(name: str, value: Any) -> float | None:
    """A number of at least 0, or None."""
    return None if value is None else non_negative(name, value)


class ADOPT(Optimizer):
    """ADOPT (Taniguchi et al. 2024): Adam that divides by the squares of before, and averages after: any β₂ converges.

        u = g / max(√v, ε), into [−c, c], c = (t−1)^p;  m' = β₁m + (1−β₁)u;  v' = β₂v + (1−β₂)g²;  θ' = θ − αm'

    t counts the updates of each tensor; the first makes v' = g² and nothing else. `wdecay` λ ≥ 0 passes through the
    averages unless `decouple=True`. This is the authors' code; timm has p = 0.333 where nothing is said, and
    pytorch_optimizer bounds by t^p, and decays in the first step where the decay is decoupled. The other options are
    `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(adopt)
    learning_rate = Number(1e-3, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.9999, beta, "betas[1]", "β₂ in [0, 1)")
    epsilon = Number(1e-6, positive, "eps", "ε > 0")
    clip_exponent = Number(0.25, optional_exponent, "clip_exp", "p ≥ 0; None bounds nothing", optional=True)
    wdecay = Number(0.0, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    decouple = Number(False, flag, meaning="whether the decay does not pass through the averages")
