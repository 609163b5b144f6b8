"""ShiftAdaMax (Courbariaux et al. 2016): AdaMax whose products are shifts by powers of two."""

from __future__ import annotations

from typing_extensions import Unpack

from neon.arguments import beta, non_negative, positive
from neon.engine.program.numbers import Number
from neon.optimizers.functions import clip, maximum, power_of_two, sign
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.schedules import Schedule
from neon.optimizers.signatures import ClipDecayOptions


def shift(a, b):  # type: ignore[no-untyped-def]
    """a·sign(b)·2^rint(log₂|b|): a times b, with b replaced by the nearest power of two."""
    return a * (sign(b) * power_of_two(b))


def shift_adamax(w, g, exp_avg, exp_inf, *, lr, betas, eps, epoch):  # type: ignore[no-untyped-def]
    """One step of shift-based AdaMax (Courbariaux et al. 2016, arXiv:1602.02830, algorithm 4).

        exp_avg ← β₁·exp_avg + (1−β₁)·g
        exp_inf ← max(β₂·exp_inf, |g|)
        w       ← clip(w − shift(shift(exp_avg, 1/(exp_inf + ε)), lr/(1−β₁ᵗ)), −1, 1),   t = epoch + 1

    >>> w, exp_avg, exp_inf = shift_adamax(0.5, 0.3, 0.1, 0.2, lr=0.01, betas=(0.9, 0.99), eps=1e-8, epoch=2)
    >>> round(w, 8), round(exp_avg, 8), exp_inf
    (0.485, 0.12, 0.3)
    """
    beta1, beta2 = betas
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_inf = maximum(beta2 * exp_inf, abs(g))
    step = shift(shift(exp_avg, 1 / (exp_inf + eps)), lr / (1 - beta1 ** (epoch + 1)))
    return clip(w - step, -1.0, 1.0), exp_avg, exp_inf


class ShiftAdaMax(Optimizer):
    """Shift-based AdaMax (Courbariaux et al. 2016), for weights in [−1, 1].

        m' = β₁m + (1−β₁)g;  v' = max(β₂v, |g|);  t = epoch + 1
        θ' = clip(θ − shift(shift(m', 1/(v'+ε)), α/(1−β₁ᵗ)), −1, 1),  shift(a, b) = a·sign(b)·2^rint(log₂|b|)

    The other options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others. A list of states that a layer
    gives may hold a third tensor, which is left as it is.
    """

    rule = staticmethod(shift_adamax)
    scratch = 1  # programs of the documented framework give three tensors, of which the third is none of the states
    learning_rate = Number(0.002, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.999, beta, "betas[1]", "β₂ in [0, 1)")
    epsilon = Number(1e-8, positive, "eps", "ε > 0")

    def __init__(
        self,
        stochastic_round: bool | int = False,
        learning_rate: float = 0.002,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        schedule: Schedule | None = None,
        name: str | None = "ShiftAdaMax",
        **options: Unpack[ClipDecayOptions],
    ) -> None:
        self._take(locals())
