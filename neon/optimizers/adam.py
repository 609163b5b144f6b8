"""Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019)."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from neon.arguments import beta, non_negative, positive
from neon.optimizers.functions import sqrt
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.options import ScheduleDecayOptions, ScheduleOptions


def _adam_delta(g, exp_avg, exp_avg_sq, lr, betas, eps, step):  # type: ignore[no-untyped-def]
    """What Adam subtracts from w, and the new averages; the corrections fold into two numbers for all elements."""
    beta1, beta2 = betas
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g * g  # in this order: g² alone overflows from 1.8e19 on
    step_size = lr / (1 - beta1**step)
    correction = 1 / sqrt(1 - beta2**step)
    return step_size * exp_avg / (sqrt(exp_avg_sq) * correction + eps), exp_avg, exp_avg_sq


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
    delta, exp_avg, exp_avg_sq = _adam_delta(g, exp_avg, exp_avg_sq, lr, betas, eps, step)
    return w - delta, exp_avg, exp_avg_sq


def adamw(w, g, exp_avg, exp_avg_sq, *, lr, betas, eps, weight_decay, step):  # type: ignore[no-untyped-def]
    """One step of AdamW (Loshchilov & Hutter 2019, algorithm 2, with the rate in the decay as torch has it).

        exp_avg, exp_avg_sq   as in Adam
        w ← w − (lr·λ·w + lr · exp_avg/(1−β₁ᵗ) / (√(exp_avg_sq/(1−β₂ᵗ)) + ε))

    >>> w, *_ = adamw(1.0, 0.5, 0.1, 0.2, lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, step=3)
    >>> round(w, 8)
    0.97011676
    """
    delta, exp_avg, exp_avg_sq = _adam_delta(g, exp_avg, exp_avg_sq, lr, betas, eps, step)
    # One rounding of w: in float32, w·(1 − lr·λ) would lose most digits of a small lr·λ.
    return w - (lr * weight_decay * w + delta), exp_avg, exp_avg_sq


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015): steps by the corrected mean of gradients over the root of their mean square.

        m' = β₁m + (1−β₁)g;  v' = β₂v + (1−β₂)g²
        θ' = θ − α m̂ / (√v̂ + ε),  m̂ = m'/(1−β₁ᵗ),  v̂ = v'/(1−β₂ᵗ)

    t counts the updates of each tensor, from 1. `learning_rate` α ≥ 0, `beta_1` and `beta_2` in [0, 1),
    `epsilon` > 0; the other options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(adam)

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
        super().__init__(
            name,
            stochastic_round=stochastic_round,
            gradient_clip_norm=gradient_clip_norm,
            gradient_clip_value=gradient_clip_value,
            param_clip_value=param_clip_value,
            **options,
        )
        self.learning_rate = non_negative("learning_rate", learning_rate)
        self.beta_1 = beta("beta_1", beta_1)
        self.beta_2 = beta("beta_2", beta_2)
        self.epsilon = positive("epsilon", epsilon)

    def hyperparameters(self) -> dict[str, Any]:
        return {"lr": self.learning_rate, "betas": (self.beta_1, self.beta_2), "eps": self.epsilon}


class AdamW(Adam):
    """AdamW (Loshchilov & Hutter 2019): Adam whose weight decay does not pass through the averages.

        θ' = θ − αλθ − α m̂ / (√v̂ + ε)

    `wdecay` λ ≥ 0; the other options are Adam's.
    """

    rule = staticmethod(adamw)

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
        super().__init__(
            stochastic_round, learning_rate, beta_1, beta_2, epsilon,
            gradient_clip_norm, gradient_clip_value, param_clip_value, name, wdecay=wdecay, **options,
        )  # fmt: skip
