"""Prodigy (Mishchenko & Defazio 2024)."""

from __future__ import annotations

import math
from typing import Any

from neon.arguments import beta, flag, non_negative, positive
from neon.engine.program.declared import OPTIMIZER, WEIGHT, State
from neon.engine.program.numbers import Number
from neon.messages import received
from neon.optimizers.functions import dot, equal, maximum, minimum, sqrt, total, where
from neon.optimizers.optimizer import Optimizer

_ROOT = "sqrt(beta_2)"


def prodigy(  # type: ignore[no-untyped-def]
    w, g, exp_avg, exp_avg_sq, s, p0=State(WEIGHT), d: Any = State("d0", of=OPTIMIZER),
    d_max: Any = State("d0", of=OPTIMIZER), d_numerator: Any = State(of=OPTIMIZER), k: Any = State(of=OPTIMIZER), *,
    lr, betas, beta3, eps, weight_decay, decouple, d0, d_coef, growth_rate, use_bias_correction, safeguard_warmup,
):  # fmt: skip
    """One step of Prodigy (Mishchenko & Defazio 2024, algorithm 4), as prodigyopt has it.

        η           ← d·lr, with use_bias_correction times √(1−β₂ᵏ⁺¹)/(1−β₁ᵏ⁺¹)
        exp_avg     ← β₁·exp_avg + d(1−β₁)·g
        exp_avg_sq  ← β₂·exp_avg_sq + d²(1−β₂)·g²
        s           ← β₃·s + (d/d₀)·η·g, with safeguard_warmup (d/d₀)·d·g
        d_numerator ← β₃·d_numerator + (d/d₀)·η·Σ g·(p0 − w)
        d̂           ← d_coef·d_numerator / Σ|s|
        d_max       ← max(d_max, d̂)
        d           ← min(d_max, growth_rate·d), of the first d, d₀, the larger of it and d̂
        w           ← w − η·(λ·w + exp_avg / (√exp_avg_sq + d·ε)), with the d of after

    The sums go over all tensors of the optimizer, p0 is where w began, and η is that of before. No weight and no number
    changes where Σ|s| is 0, and nothing at all in a group whose lr is 0. (prodigyopt goes on moving such a group; with
    β₁ = 0 it takes the d of after in exp_avg.)

    >>> numbers = dict(betas=(0.9, 0.99), beta3=0.9, eps=1e-8, weight_decay=0.1, decouple=True, d0=0.1, d_coef=1.0)
    >>> flags = dict(growth_rate=float("inf"), use_bias_correction=False, safeguard_warmup=False)
    >>> w, m, v, s, p0, *rest = prodigy(1.0, 0.5, 0.1, 0.2, 0.3, 1.5, 0.1, 0.1, 0.2, 4.0, lr=1.0, **numbers, **flags)
    >>> [round(value, 8) for value in (w, m, v, s, p0)], [round(value, 8) for value in rest]
    ([0.96865169, 0.095, 0.198025, 0.32, 1.5], [0.640625, 0.640625, 0.205, 5.0])
    """
    beta1, beta2 = betas
    decay = beta3 = sqrt(beta2) if isinstance(beta3, str) else beta3
    if not decouple:
        g = g + weight_decay * w
    rate, share = d, d / d0  # the rate but for lr, which groups may have of their own
    if use_bias_correction:
        rate = d * sqrt(1 - beta2 ** (k + 1)) / (1 - beta1 ** (k + 1))
    # Numbers, for a choice within the loop would be made for each element: where lr is 0 all averages stay.
    acts = where(lr > 0, 1.0, 0.0)
    beta1, beta2, beta3 = (where(lr > 0, kept, 1.0) for kept in (beta1, beta2, beta3))
    exp_avg = beta1 * exp_avg + d * (1 - beta1) * g
    exp_avg_sq = beta2 * exp_avg_sq + d * d * (1 - beta2) * g * g
    s = beta3 * s + acts * share * (d if safeguard_warmup else rate * lr) * g
    denominator = total(acts * abs(s), over=OPTIMIZER)
    numerator = decay * d_numerator + share * rate * dot(lr * g, p0 - w, over=OPTIMIZER)
    rests = equal(denominator, 0)  # NaN does not: it has to show
    estimate = d_coef * numerator / where(rests, 1.0, denominator)
    most = maximum(d_max, estimate)
    new = minimum(most, where(d == d0, maximum(d, estimate), d) * growth_rate)
    new, most = where(rests, d, new), where(rests, d_max, most)
    update = exp_avg / (sqrt(exp_avg_sq) + new * eps)
    if decouple:
        update = weight_decay * w + update
    w = w - where(rests, 0.0, rate * lr) * update
    return w, exp_avg, exp_avg_sq, s, p0, new, most, where(rests, d_numerator, numerator), where(rests, k, k + 1)


def _growth(name: str, value: Any) -> float:
    if value == math.inf:
        return math.inf
    value = positive(name, value)
    if value < 1:
        raise ValueError(f"{name} must be at least 1; infinity bounds nothing. {received(name, value)}")
    return value


def _beta3(name: str, value: Any) -> Any:
    return value if value == _ROOT else beta(name, value)


class Prodigy(Optimizer):
    """Prodigy (Mishchenko & Defazio 2024): Adam that finds the size d of its steps from how far weights have gone.

        θ' = θ − ηλθ − η m / (√v + dε),  η = d·α

    d, one number of all tensors of the optimizer, grows from d₀ to the distance of a solution. It is in parameter
    groups as "d". Leave α at 1; schedules multiply it. `wdecay` λ ≥ 0, decoupled unless `decouple=False`. Weights of
    16 bits need `master="split"` or `stochastic_round=True`: to nearest, first steps of d₀ would be lost. The other
    options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(prodigy)
    _keeps_decay = "decays by d·α, with `decouple` or without"
    learning_rate = Number(1.0, non_negative, "lr", "α ≥ 0, a factor of what is found")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.999, beta, "betas[1]", "β₂ in [0, 1)")
    beta_3 = Number(_ROOT, _beta3, "beta3", "β₃ in [0, 1), of the sums; √β₂ as the default says")
    epsilon = Number(1e-8, positive, "eps", "ε > 0")
    wdecay = Number(0.0, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    decouple = Number(True, flag, meaning="whether the decay does not pass through the averages")
    d0 = Number(1e-6, positive, meaning="d₀ > 0, the first d")
    d_coef = Number(1.0, positive, meaning="a factor > 0 of what is estimated")
    growth_rate = Number(math.inf, _growth, meaning="by how much d may grow in a step, at least 1")
    use_bias_correction = Number(False, flag, meaning="Adam's corrections")
    safeguard_warmup = Number(False, flag, meaning="whether α has no say in s")
