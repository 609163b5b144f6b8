"""Signum, and descent by signs (Bernstein et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neon.arguments import beta, flag, non_negative
from neon.engine.program.numbers import Number
from neon.engine.program.trace import Rule
from neon.optimizers.functions import sign
from neon.optimizers.optimizer import Optimizer


def sign_descent(w, g, *, lr, weight_decay, decouple):  # type: ignore[no-untyped-def]
    """One step of signSGD (Bernstein et al. 2018, algorithm 1).

        w ← w − lr·(sign(g) + λ·w)     or, with the decay in the gradient,
        w ← w − lr·sign(g + λ·w)

    >>> sign_descent(1.0, 0.5, lr=0.1, weight_decay=0.25, decouple=True)
    0.875
    >>> sign_descent(-4.0, 0.5, lr=0.25, weight_decay=0.25, decouple=False)
    -3.75
    """
    if decouple:
        return w - lr * (sign(g) + weight_decay * w)
    return w - lr * sign(g + weight_decay * w)


def signum(w, g, momentum_buffer, *, lr, momentum, weight_decay, decouple):  # type: ignore[no-untyped-def]
    """One step of Signum (Bernstein et al. 2018, algorithm 2).

        momentum_buffer ← β·momentum_buffer + (1−β)·g
        w               ← w − lr·(sign(momentum_buffer) + λ·w)

    Without `decouple` λ·w is added to g, and nothing to the sign.

    >>> numbers = dict(lr=0.1, momentum=0.9, weight_decay=0.1)
    >>> w, momentum_buffer = signum(1.0, 0.5, -0.2, **numbers, decouple=True)
    >>> round(w, 8), round(momentum_buffer, 8)
    (1.09, -0.13)
    >>> w, momentum_buffer = signum(1.0, 0.5, -0.06, **numbers, decouple=False)
    >>> round(w, 8), round(momentum_buffer, 8)
    (0.9, 0.006)
    """
    if not decouple:
        g = g + weight_decay * w
    momentum_buffer = momentum * momentum_buffer + (1 - momentum) * g
    update = sign(momentum_buffer)
    if decouple:
        update = update + weight_decay * w
    return w - lr * update, momentum_buffer


class Signum(Optimizer):
    """Signum (Bernstein et al. 2018): steps by the sign of a momentum; without a momentum, by that of the gradient.

        m' = βm + (1−β)g;  θ' = θ − α(sign(m') + λθ)

    `momentum_coef=0` is signSGD, and keeps nothing. `wdecay` λ ≥ 0 is decoupled, as pytorch_optimizer's SignSGD has it;
    with `decouple=False` it passes through the momentum, as the authors' `wd` in MXNet does. Lion with both β equal is
    this rule, and with `beta_1` = β² Nesterov's form of it. The other options are `Optimizer`'s. Raises as that does.
    """

    rule = staticmethod(signum)
    learning_rate = Number(1e-4, non_negative, "lr", "α ≥ 0")
    momentum_coef = Number(0.9, beta, "momentum", "β in [0, 1): with 0 no momentum is kept")
    wdecay = Number(0.0, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    decouple = Number(True, flag, meaning="whether the decay does not pass through the momentum")

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        return sign_descent if values["momentum"] == 0 else signum
