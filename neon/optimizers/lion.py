"""Lion (Chen et al. 2023)."""

from __future__ import annotations

from typing_extensions import Unpack

from neon.arguments import beta, non_negative
from neon.engine.program.numbers import Number
from neon.optimizers.functions import sign
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.signatures import ScheduleDecayOptions


def lion(w, g, exp_avg, *, lr, betas, weight_decay):  # type: ignore[no-untyped-def]
    """One step of Lion (Chen et al. 2023, algorithm 2).

        w       ← w − lr·(sign(β₁·exp_avg + (1−β₁)·g) + λ·w)
        exp_avg ← β₂·exp_avg + (1−β₂)·g

    >>> w, exp_avg = lion(1.0, 0.5, -0.2, lr=0.1, betas=(0.9, 0.99), weight_decay=0.1)
    >>> round(w, 8), round(exp_avg, 8)
    (1.09, -0.193)
    """
    beta1, beta2 = betas
    update = sign(beta1 * exp_avg + (1 - beta1) * g)
    w = w - lr * (update + weight_decay * w)
    exp_avg = beta2 * exp_avg + (1 - beta2) * g
    return w, exp_avg


class Lion(Optimizer):
    """Lion (Chen et al. 2023): steps by the sign of an average of gradients.

        u = sign(β₁m + (1−β₁)g);  θ' = θ − α(u + λθ);  m' = β₂m + (1−β₂)g

    `learning_rate` α ≥ 0 (a tenth to a third of Adam's is usual), `beta_1` and `beta_2` in [0, 1), `wdecay`
    λ ≥ 0, decoupled. The other options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(lion)
    learning_rate = Number(1e-4, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.99, beta, "betas[1]", "β₂ in [0, 1)")

    def __init__(
        self,
        stochastic_round: bool | int = False,
        learning_rate: float = 1e-4,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        gradient_clip_norm: float | None = None,
        gradient_clip_value: float | None = None,
        param_clip_value: float | None = None,
        name: str | None = "lion",
        **options: Unpack[ScheduleDecayOptions],
    ) -> None:
        self._take(locals())
