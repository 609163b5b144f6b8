"""MARS (Yuan et al. 2024)."""

from __future__ import annotations

from typing import Any

from neon.arguments import beta, flag, non_negative, positive
from neon.engine.program.numbers import Number
from neon.messages import received
from neon.optimizers.adam import averages, direction
from neon.optimizers.functions import equal, maximum, norm, sign, where
from neon.optimizers.optimizer import Optimizer

_TYPES = "adamw", "lion"


def mars(  # type: ignore[no-untyped-def]
    w, g, exp_avg, exp_avg_sq, last_grad,
    *, lr, betas, eps, gamma, weight_decay, mars_type, optimize_1d, first_difference, matrix, step,
):  # fmt: skip
    """One step of MARS (Yuan et al. 2024, algorithm 2, with the gradient of the step before).

        c         ← g + γ·β₁/(1−β₁)·(g − last_grad);  in the first step c ← g
        c         ← c / max(1, ‖c‖) over the whole tensor
        last_grad ← g
        exp_avg, exp_avg_sq   as in Adam, of c in the place of g
        w         ← w − lr·(exp_avg/(1−β₁ᵗ) / (√(exp_avg_sq/(1−β₂ᵗ)) + ε) + λ·w)

    With `mars_type="lion"` it is w − lr·(sign(exp_avg) + λ·w). `step` is t; with `first_difference` the first step goes
    by last_grad = 0. Of tensors of fewer than two dimensions c is g, and the step AdamW's, unless `optimize_1d`.

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-8, gamma=0.25, weight_decay=0.1, step=3)
    >>> forms = dict(mars_type="adamw", optimize_1d=False, first_difference=False)
    >>> [round(x, 8) for x in mars(1.0, 0.25, 0.1, 0.2, 0.15, **numbers, **forms, matrix=True)]
    [0.97045994, 0.1375, 0.20025625, 0.25]
    >>> [round(x, 8) for x in mars(1.0, 0.25, 0.1, 0.2, 0.15, **numbers, **forms, matrix=False)]
    [0.97359043, 0.115, 0.198625, 0.15]
    >>> round(mars(1.0, 2.0, 0.1, 0.2, 0.15, **numbers, **forms, matrix=True)[0], 8)
    0.96350657
    >>> round(mars(1.0, 0.25, 0.1, 0.2, 0.15, **numbers, **forms | {"mars_type": "lion"}, matrix=True)[0], 8)
    0.89
    """
    c, reduced = g, matrix or optimize_1d
    if reduced:
        share = gamma * betas[0] / (1 - betas[0])
        if not first_difference:
            share = where(equal(step, 1), 0, share)
        c, last_grad = g + share * (g - last_grad), g
        c = c * (1 / maximum(1, norm(c)))
    if reduced and mars_type == "lion":
        exp_avg = betas[0] * exp_avg + (1 - betas[0]) * c
        update = sign(exp_avg)
    else:
        exp_avg, exp_avg_sq = averages(c, exp_avg, exp_avg_sq, betas)
        update = direction(exp_avg, exp_avg_sq, betas, eps, step)
    return w - lr * (update + weight_decay * w), exp_avg, exp_avg_sq, last_grad


def _type(name: str, value: Any) -> str:
    if value not in _TYPES:
        raise ValueError(f'{name} must be "adamw" or "lion". {received(name, value)}')
    return value


class MARS(Optimizer):
    """MARS (Yuan et al. 2024): AdamW, or signs, of a gradient that goes on as it changed since the step before.

        c = g + γβ₁/(1−β₁)·(g − g₋),  c' = c / max(1, ‖c‖);  θ' = θ − α(m̂ / (√v̂ + ε) + λθ),  m and v of c'

    The gradients are those of successive batches: the paper's approximate form. Only tensors of two dimensions and more
    have it, as in all packages. Others get AdamW's steps, with numbers of their own in a group of their own: authors
    and pytorch_optimizer give them `betas=(0.9, 0.95)` and `weight_decay=0.1`. timm starts, as here, without a
    difference, and has β₁ = 0.9. The authors and pytorch_optimizer start from a gradient of 0: `first_difference`. In
    pytorch_optimizer the denominator is (√(v + 1e-15) + ε)/√(1−β₂ᵗ). `wdecay` λ ≥ 0, decoupled. The other options are
    `Optimizer`'s. Raises as that does.
    """

    rule = staticmethod(mars)
    learning_rate = Number(3e-3, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.95, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.99, beta, "betas[1]", "β₂ in [0, 1)")
    epsilon = Number(1e-8, positive, "eps", "ε > 0")
    gamma = Number(0.025, non_negative, meaning="γ ≥ 0, the share of the difference")
    wdecay = Number(0.0, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    mars_type = Number("adamw", _type, meaning='"adamw", or "lion": steps by the sign of m')
    optimize_1d = Number(False, flag, meaning="whether tensors of fewer than two dimensions have it too")
    first_difference = Number(False, flag, meaning="whether the first step has the difference to a gradient of 0")
