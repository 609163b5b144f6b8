"""Adadelta (Zeiler 2012)."""

from __future__ import annotations

from typing_extensions import Unpack

from neon.arguments import non_negative, positive, unit_interval
from neon.engine.program.numbers import Number
from neon.optimizers.functions import sqrt
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.signatures import GradientClipOptions


def adadelta(w, g, square_avg, acc_delta, *, lr, rho, eps):  # type: ignore[no-untyped-def]
    """One step of Adadelta (Zeiler 2012, algorithm 1), with ε inside each root.

        square_avg ← ρ·square_avg + (1−ρ)·g²
        Δ          ← √((acc_delta + ε) / (square_avg + ε)) · g
        acc_delta  ← ρ·acc_delta + (1−ρ)·Δ²
        w          ← w − lr·Δ

    >>> w, square_avg, acc_delta = adadelta(1.0, 0.5, 0.2, 0.1, lr=1.0, rho=0.9, eps=0.01)
    >>> round(w, 8), round(square_avg, 8), round(acc_delta, 8)
    (0.64235915, 0.205, 0.1027907)
    """
    square_avg = rho * square_avg + (1 - rho) * g * g
    delta = sqrt((acc_delta + eps) / (square_avg + eps)) * g
    acc_delta = rho * acc_delta + (1 - rho) * delta * delta
    w = w - lr * delta
    return w, square_avg, acc_delta


class Adadelta(Optimizer):
    """Adadelta (Zeiler 2012): steps in the units of the weights, without a learning rate to set.

        μ_J' = λμ_J + (1−λ)g²;  Δ = √((μ_θ+ε)/(μ_J'+ε)) g;  μ_θ' = λμ_θ + (1−λ)Δ²;  θ' = θ − αΔ

    `learning_rate` α scales the step, for schedules. The other options are `Optimizer`'s. Raises `ValueError` or
    `TypeError` for others. A list of states that a layer gives may hold a third tensor, which is left as it is.
    """

    rule = staticmethod(adadelta)
    scratch = 1  # programs of the documented framework give three tensors, of which the third is none of the states
    learning_rate = Number(1.0, non_negative, "lr", "α ≥ 0")
    decay = Number(0.95, unit_interval, "rho", "λ in [0, 1]")
    epsilon = Number(1e-6, positive, "eps", "ε > 0")

    def __init__(
        self,
        stochastic_round: bool | int = False,
        decay: float = 0.95,
        epsilon: float = 1e-6,
        param_clip_value: float | None = None,
        name: str | None = None,
        *,
        learning_rate: float = 1.0,
        **options: Unpack[GradientClipOptions],
    ) -> None:
        self._take(locals())
