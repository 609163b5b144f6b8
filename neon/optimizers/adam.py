"""Adam (Kingma & Ba 2015), AdamW (Loshchilov & Hutter 2019) and AMSGrad (Reddi, Kale & Kumar 2018)."""

from __future__ import annotations

from typing_extensions import Unpack

from neon.arguments import beta, non_negative, positive
from neon.engine.program.numbers import Number
from neon.optimizers.functions import maximum, sqrt
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.signatures import ScheduleDecayOptions, ScheduleOptions


def averages(g, exp_avg, exp_avg_sq, betas):  # type: ignore[no-untyped-def]
    """Adam's means of gradients and of their squares."""
    beta1, beta2 = betas
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    return exp_avg, beta2 * exp_avg_sq + (1 - beta2) * g * g  # in this order: g² alone overflows from 1.8e19 on


def direction(exp_avg, exp_avg_sq, betas, eps, step):  # type: ignore[no-untyped-def]
    """Adam's corrected mean over its corrected root; the corrections are two numbers for all elements."""
    quick, scale = 1 / (1 - betas[0] ** step), 1 / sqrt(1 - betas[1] ** step)
    return quick * exp_avg / (sqrt(exp_avg_sq) * scale + eps)


def _delta(exp_avg, exp_avg_sq, lr, betas, eps, step):  # type: ignore[no-untyped-def]
    """What Adam subtracts from w; the corrections fold into two numbers for all elements."""
    step_size = lr / (1 - betas[0] ** step)
    correction = 1 / sqrt(1 - betas[1] ** step)
    return step_size * exp_avg / (sqrt(exp_avg_sq) * correction + eps)


def adam(w, g, exp_avg, exp_avg_sq, *, lr, betas, eps, step):  # type: ignore[no-untyped-def]
    """One step of Adam (Kingma & Ba 2015, algorithm 1, with ε outside the root).

        exp_avg    ← β₁·exp_avg + (1−β₁)·g
        exp_avg_sq ← β₂·exp_avg_sq + (1−β₂)·g²
        w          ← w − lr · exp_avg/(1−β₁ᵗ) / (√(exp_avg_sq/(1−β₂ᵗ)) + ε)

    `step` is t, the number of this update of the tensor, from 1.

    >>> w, exp_avg, exp_avg_sq = adam(1.0, 0.5, 0.1, 0.2, lr=0.1, betas=(0.9, 0.99), eps=1e-8, step=3)
    >>> round(w, 8), round(exp_avg, 8), round(exp_avg_sq, 8)
    (0.98011676, 0.14, 0.2005)
    """
    exp_avg, exp_avg_sq = averages(g, exp_avg, exp_avg_sq, betas)
    return w - _delta(exp_avg, exp_avg_sq, lr, betas, eps, step), exp_avg, exp_avg_sq


def adamw(w, g, exp_avg, exp_avg_sq, *, lr, betas, eps, weight_decay, step):  # type: ignore[no-untyped-def]
    """One step of AdamW (Loshchilov & Hutter 2019, algorithm 2, with the rate in the decay as torch has it).

        exp_avg, exp_avg_sq   as in Adam
        w ← w − (lr·λ·w + lr · exp_avg/(1−β₁ᵗ) / (√(exp_avg_sq/(1−β₂ᵗ)) + ε))

    >>> w, *_ = adamw(1.0, 0.5, 0.1, 0.2, lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, step=3)
    >>> round(w, 8)
    0.97011676
    """
    exp_avg, exp_avg_sq = averages(g, exp_avg, exp_avg_sq, betas)
    delta = _delta(exp_avg, exp_avg_sq, lr, betas, eps, step)
    # One rounding of w: in float32, w·(1 − lr·λ) would lose most digits of a small lr·λ.
    return w - (lr * weight_decay * w + delta), exp_avg, exp_avg_sq


def amsgrad(  # type: ignore[no-untyped-def]
    w, g, exp_avg, exp_avg_sq, max_exp_avg_sq, *, lr, betas, eps, weight_decay, decoupled_weight_decay, step
):
    """One step of AMSGrad (Reddi, Kale & Kumar 2018, algorithm 2, with Adam's corrections).

        exp_avg        ← β₁·exp_avg + (1−β₁)·g
        exp_avg_sq     ← β₂·exp_avg_sq + (1−β₂)·g²
        max_exp_avg_sq ← max(max_exp_avg_sq, exp_avg_sq)
        w              ← w − lr · exp_avg/(1−β₁ᵗ) / (√(max_exp_avg_sq/(1−β₂ᵗ)) + ε)

    The weight decay λ·w is added to g or, decoupled, lr·λ·w is subtracted from w. `step` is t.

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, step=3)
    >>> w, _, exp_avg_sq, max_exp_avg_sq = amsgrad(1.0, 0.5, 0.1, 0.2, 0.3, **numbers, decoupled_weight_decay=True)
    >>> round(w, 8), round(exp_avg_sq, 8), max_exp_avg_sq
    (0.97374512, 0.2005, 0.3)
    >>> w, exp_avg, *_, max_exp_avg_sq = amsgrad(1.0, 0.5, 0.1, 0.2, 0.1, **numbers, decoupled_weight_decay=False)
    >>> round(w, 8), round(exp_avg, 8), round(max_exp_avg_sq, 8)
    (0.97875473, 0.15, 0.2016)
    """
    if not decoupled_weight_decay:
        g = g + weight_decay * w
    exp_avg, exp_avg_sq = averages(g, exp_avg, exp_avg_sq, betas)
    max_exp_avg_sq = maximum(max_exp_avg_sq, exp_avg_sq)
    delta = _delta(exp_avg, max_exp_avg_sq, lr, betas, eps, step)
    if decoupled_weight_decay:
        delta = lr * weight_decay * w + delta  # one rounding of w, as in AdamW
    return w - delta, exp_avg, exp_avg_sq, max_exp_avg_sq


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015): steps by the corrected mean of gradients over the root of their mean square.

        m' = β₁m + (1−β₁)g;  v' = β₂v + (1−β₂)g²
        θ' = θ − α m̂ / (√v̂ + ε),  m̂ = m'/(1−β₁ᵗ),  v̂ = v'/(1−β₂ᵗ)

    t counts the updates of each tensor, from 1. The other options are `Optimizer`'s. Raises as that does.
    """

    rule = staticmethod(adam)
    learning_rate = Number(0.001, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.999, beta, "betas[1]", "β₂ in [0, 1)")
    epsilon = Number(1e-8, positive, "eps", "ε > 0")

    def __init__(
        self,
        stochastic_round: bool | int = False,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        gradient_clip_norm: float | None = None,
        gradient_clip_value: float | None = None,
        param_clip_value: float | None = None,
        name: str | None = "adam",
        **options: Unpack[ScheduleDecayOptions],
    ) -> None:
        self._take(locals())


class AdamW(Adam):
    """AdamW (Loshchilov & Hutter 2019): Adam whose weight decay does not pass through the averages.

        θ' = θ − αλθ − α m̂ / (√v̂ + ε)

    `wdecay` λ ≥ 0; the other options are Adam's.
    """

    rule = staticmethod(adamw)
    wdecay = Number(0.01, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]

    def __init__(
        self,
        stochastic_round: bool | int = False,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        gradient_clip_norm: float | None = None,
        gradient_clip_value: float | None = None,
        param_clip_value: float | None = None,
        name: str | None = "adamw",
        *,
        wdecay: float = 0.01,
        **options: Unpack[ScheduleOptions],
    ) -> None:
        self._take(locals())
