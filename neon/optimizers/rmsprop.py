"""RMSProp (Tieleman & Hinton 2012)."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from neon.arguments import non_negative, positive, unit_interval
from neon.optimizers.functions import sqrt
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.options import DecayOptions
from neon.optimizers.schedules import Schedule


def rmsprop(w, g, square_avg, *, lr, alpha, eps):  # type: ignore[no-untyped-def]
    """One step of RMSProp (Tieleman & Hinton 2012, lecture 6.5), with ε inside and outside the root.

        square_avg ← α·square_avg + (1−α)·g²
        w          ← w − lr·g / (√(square_avg + ε) + ε)

    >>> w, square_avg = rmsprop(1.0, 0.5, 0.2, lr=0.1, alpha=0.9, eps=0.01)
    >>> round(w, 8), round(square_avg, 8)
    (0.89444371, 0.205)
    """
    square_avg = alpha * square_avg + (1 - alpha) * g * g
    w = w - lr * g / (sqrt(square_avg + eps) + eps)
    return w, square_avg


class RMSProp(Optimizer):
    """RMSProp (Tieleman & Hinton 2012): steps by the gradient over the root of its mean square.

        μ' = λμ + (1−λ)g²;  θ' = θ − α g / (√(μ'+ε) + ε)

    `decay_rate` λ in [0, 1], `learning_rate` α ≥ 0, `epsilon` > 0; the other options are `Optimizer`'s.
    Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(rmsprop)

    def __init__(
        self,
        stochastic_round: bool | int = False,
        decay_rate: float = 0.95,
        learning_rate: float = 2e-3,
        epsilon: float = 1e-6,
        gradient_clip_norm: float | None = None,
        gradient_clip_value: float | None = None,
        param_clip_value: float | None = None,
        name: str | None = None,
        schedule: Schedule | None = None,
        **options: Unpack[DecayOptions],
    ) -> None:
        super().__init__(
            name,
            stochastic_round=stochastic_round,
            gradient_clip_norm=gradient_clip_norm,
            gradient_clip_value=gradient_clip_value,
            param_clip_value=param_clip_value,
            schedule=schedule,
            **options,
        )
        self.decay_rate = unit_interval("decay_rate", decay_rate)
        self.learning_rate = non_negative("learning_rate", learning_rate)
        self.epsilon = positive("epsilon", epsilon)

    def hyperparameters(self) -> dict[str, Any]:
        return {"lr": self.learning_rate, "alpha": self.decay_rate, "eps": self.epsilon}


RMSprop = RMSProp
