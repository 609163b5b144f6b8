"""Adagrad (Duchi, Hazan & Singer 2011)."""

from __future__ import annotations

from typing import Any

from typing_extensions import Unpack

from neon.arguments import non_negative, positive
from neon.optimizers.functions import sqrt
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.options import ScheduleDecayOptions


def adagrad(w, g, sum, *, lr, eps):  # type: ignore[no-untyped-def]
    """One step of Adagrad (Duchi, Hazan & Singer 2011, the diagonal form), with ε inside the root.

        sum ← sum + g²
        w   ← w − lr·g / √(sum + ε)

    >>> w, total = adagrad(1.0, 0.5, 0.2, lr=0.1, eps=0.01)
    >>> round(w, 8), round(total, 8)
    (0.92627902, 0.45)
    """
    sum = sum + g * g
    w = w - lr * g / sqrt(sum + eps)
    return w, sum


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan & Singer 2011): steps by the gradient over the root of its sum of squares.

        G' = G + g²;  θ' = θ − α g / √(G'+ε)

    `learning_rate` α ≥ 0, `epsilon` > 0; the other options are `Optimizer`'s. Raises `ValueError` or
    `TypeError` for others.
    """

    rule = staticmethod(adagrad)

    def __init__(
        self,
        stochastic_round: bool | int = False,
        learning_rate: float = 0.01,
        epsilon: float = 1e-6,
        gradient_clip_norm: float | None = None,
        gradient_clip_value: float | None = None,
        param_clip_value: float | None = None,
        name: str | None = None,
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
        self.epsilon = positive("epsilon", epsilon)

    def hyperparameters(self) -> dict[str, Any]:
        return {"lr": self.learning_rate, "eps": self.epsilon}
