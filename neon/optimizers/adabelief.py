"""AdaBelief (Zhuang et al. 2020)."""

from __future__ import annotations

from neon.arguments import beta, flag, non_negative, positive
from neon.engine.program.numbers import Number
from neon.optimizers.adafactor import optional_epsilon
from neon.optimizers.functions import sqrt, where
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.radam import rectification


def adabelief(  # type: ignore[no-untyped-def]
    w, g, exp_avg, exp_avg_var,
    *, lr, betas, eps, eps_inside, weight_decay, decouple, rectify, degenerated_to_sgd, step,
):  # fmt: skip
    """One step of AdaBelief (Zhuang et al. 2020, algorithm 2).

        exp_avg     ← β₁·exp_avg + (1−β₁)·g
        exp_avg_var ← β₂·exp_avg_var + (1−β₂)·(g − exp_avg)² + ε′
        w           ← w − (lr·λ·w + lr · exp_avg/(1−β₁ᵗ) / (√(exp_avg_var/(1−β₂ᵗ)) + ε))

    ε′ is `eps_inside`, ε where that is None. Without `decouple` λ·w is added to g instead. `rectify` multiplies the
    step by √((1−β₂ᵗ)·r) in place of the root's correction, where ρ = ρ∞ − 2t·β₂ᵗ/(1−β₂ᵗ) is 5 at least; before, the
    step is lr·exp_avg/(1−β₁ᵗ), without `degenerated_to_sgd` 0.

        r = (ρ−4)(ρ−2)·ρ∞ / ((ρ∞−4)(ρ∞−2)·ρ),  ρ∞ = 2/(1−β₂) − 1

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-2, eps_inside=1e-3, weight_decay=0.1)
    >>> flags = dict(decouple=True, rectify=False, degenerated_to_sgd=True)
    >>> w, *states = adabelief(1.0, 0.5, 0.1, 0.2, **numbers, **flags, step=3)
    >>> round(w, 8), [round(state, 8) for state in states]
    (0.97018295, [0.14, 0.200296])
    >>> flags = dict(decouple=False, rectify=True, degenerated_to_sgd=True)
    >>> [round(adabelief(1.0, 0.5, 0.1, 0.2, **numbers, **flags, step=step)[0], 8) for step in (3, 30)]
    [0.94464945, 0.99401091]
    """
    beta1, beta2 = betas
    if not decouple:
        g = g + weight_decay * w
    surprise = beta1 * (g - exp_avg)  # g minus the new mean, with no digits lost where both are nearly equal
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_avg_var = beta2 * exp_avg_var + (1 - beta2) * surprise * surprise + (eps if eps_inside is None else eps_inside)
    # Numbers: the rate, and what the root and ε are multiplied by, for all elements.
    rate, scale, outside = lr / (1 - beta1**step), 1 / sqrt(1 - beta2**step), eps
    if rectify:
        length, factor = rectification(beta2, step)
        adapts = length >= 5
        before = 1.0 if degenerated_to_sgd else 0.0
        rate = rate * where(adapts, sqrt((1 - beta2**step) * factor), before)
        scale, outside = where(adapts, 1.0, 0.0), where(adapts, eps, 1.0)
    delta = rate * exp_avg / (sqrt(exp_avg_var) * scale + outside)
    if decouple:
        delta = lr * weight_decay * w + delta  # one rounding of w, as in AdamW
    return w - delta, exp_avg, exp_avg_var


class AdaBelief(Optimizer):
    """AdaBelief (Zhuang et al. 2020): Adam that divides by how far gradients are from their mean, not by their size.

        m' = β₁m + (1−β₁)g;  s' = β₂s + (1−β₂)(g − m')² + ε
        θ' = θ − αλθ − α m̂ / (√ŝ + ε),  m̂ = m'/(1−β₁ᵗ),  ŝ = s'/(1−β₂ᵗ)

    t counts the updates of each tensor, from 1. `wdecay` λ ≥ 0, decoupled unless `decouple=False`. With `rectify=True`
    it is what timm and adabelief-pytorch do where nothing is said; pytorch_optimizer's default is the one here. optax
    has an ε of its own within the average: `epsilon_inside`. With m in 8 bits, which keep it to a sixteenth, s does not
    fall below what such differences make. The other options are `Optimizer`'s. Raises `ValueError` or `TypeError` for
    others.
    """

    rule = staticmethod(adabelief)
    learning_rate = Number(1e-3, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.999, beta, "betas[1]", "β₂ in [0, 1)")
    epsilon = Number(1e-16, positive, "eps", "ε > 0")
    epsilon_inside = Number(None, optional_epsilon, "eps_inside", "≥ 0, of s; None: as ε", optional=True)
    wdecay = Number(0.0, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    decouple = Number(True, flag, meaning="whether the decay does not pass through the averages")
    rectify = Number(False, flag, meaning="RAdam's factor")
    degenerated_to_sgd = Number(True, flag, meaning="with rectify: first steps by m̂ alone, and not none")
