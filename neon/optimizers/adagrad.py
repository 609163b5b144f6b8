"""Adagrad (Duchi, Hazan & Singer 2011), and torch's form of it."""

from __future__ import annotations

from functools import lru_cache

from typing_extensions import Unpack

from neon.arguments import non_negative, positive
from neon.engine.program.numbers import Number
from neon.engine.program.trace import Rule
from neon.optimizers.functions import sqrt
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.signatures import ScheduleDecayOptions


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


def torch_adagrad(w, g, sum, *, lr, lr_decay, eps, step):  # type: ignore[no-untyped-def]
    """One step of torch.optim.Adagrad (Duchi, Hazan & Singer 2011, the diagonal form), with ε outside the root.

        sum ← sum + g²
        w   ← w − lr/(1 + (t−1)·η) · g / (√sum + ε)

    `lr_decay` is η; `step` is t, the number of this update of the tensor, from 1.

    >>> w, total = torch_adagrad(1.0, 0.5, 0.2, lr=0.1, lr_decay=0.5, eps=0.01, step=3)
    >>> round(w, 8), round(total, 8)
    (0.9632796, 0.45)
    """
    sum = sum + g * g
    return w - lr / (1 + (step - 1) * lr_decay) * g / (sqrt(sum) + eps), sum


torch_adagrad.__name__ = "adagrad"  # the program's


@lru_cache(maxsize=32)  # what is made for a rule is kept as long as the rule
def adagrad_from(start: float) -> Rule:
    """Adagrad whose sum starts at a value other than 0."""

    def adagrad_from_start(w, g, sum=start, *, lr, lr_decay, eps, step):  # type: ignore[no-untyped-def]
        return torch_adagrad(w, g, sum, lr=lr, lr_decay=lr_decay, eps=eps, step=step)

    return adagrad_from_start


class Adagrad(Optimizer):
    """Adagrad (Duchi, Hazan & Singer 2011): steps by the gradient over the root of its sum of squares.

        G' = G + g²;  θ' = θ − α g / √(G'+ε)

    The other options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(adagrad)
    learning_rate = Number(0.01, non_negative, "lr", "α ≥ 0")
    epsilon = Number(1e-6, positive, "eps", "ε > 0")

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
        self._take(locals())
