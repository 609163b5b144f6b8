"""Gradient descent with momentum (Polyak 1964), also in Nesterov's form (Sutskever et al. 2013), and torch's SGD."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import Unpack

from neon.arguments import flag, non_negative, unit_interval
from neon.engine.program.numbers import Number
from neon.engine.program.trace import Rule
from neon.optimizers.functions import equal, where
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.schedules import Schedule
from neon.optimizers.signatures import StorageOptions


def gradient_descent(w, g, *, lr):  # type: ignore[no-untyped-def]
    """One step of gradient descent (Cauchy 1847).

        w ← w − lr·g

    >>> gradient_descent(1.0, 0.5, lr=0.1)
    0.95
    """
    return w - lr * g


def gradient_descent_momentum(w, g, velocity, *, lr, momentum, nesterov):  # type: ignore[no-untyped-def]
    """One step of gradient descent with momentum (Sutskever et al. 2013, equations 1 to 4).

        velocity ← γ·velocity − lr·g
        w        ← w + velocity                  or, with Nesterov's form,
        w        ← w + γ·velocity − lr·g

    The velocity holds the learning rate: a change of the rate does not rescale it.

    >>> w, velocity = gradient_descent_momentum(1.0, 0.5, -0.2, lr=0.1, momentum=0.9, nesterov=False)
    >>> round(w, 8), round(velocity, 8)
    (0.77, -0.23)
    >>> round(gradient_descent_momentum(1.0, 0.5, -0.2, lr=0.1, momentum=0.9, nesterov=True)[0], 8)
    0.743
    """
    velocity = momentum * velocity - lr * g
    w = w + momentum * velocity - lr * g if nesterov else w + velocity
    return w, velocity


def sgd(w, g, momentum_buffer, *, lr, momentum, dampening, nesterov, step):  # type: ignore[no-untyped-def]
    """One step of torch.optim.SGD with momentum (Sutskever et al. 2013, with the rate outside the buffer).

        momentum_buffer ← μ·momentum_buffer + (1−τ)·g     with τ = 0 in the first step
        w               ← w − lr·momentum_buffer          or, with Nesterov's form,
        w               ← w − lr·(g + μ·momentum_buffer)

    `dampening` is τ; `step` is the number of this update of the tensor, from 1.

    >>> numbers = dict(lr=0.1, momentum=0.9, dampening=0.25)
    >>> w, momentum_buffer = sgd(1.0, 0.5, -0.2, **numbers, nesterov=False, step=2)
    >>> round(w, 8), round(momentum_buffer, 8)
    (0.9805, 0.195)
    >>> round(sgd(1.0, 0.5, -0.2, **numbers, nesterov=True, step=2)[0], 8)
    0.93245
    >>> sgd(1.0, 0.5, 0.0, **numbers, nesterov=False, step=1)
    (0.95, 0.5)
    """
    momentum_buffer = momentum * momentum_buffer + where(equal(step, 1), 1, 1 - dampening) * g
    w = w - lr * (g + momentum * momentum_buffer if nesterov else momentum_buffer)
    return w, momentum_buffer


class GradientDescentMomentum(Optimizer):
    """Gradient descent with momentum (Polyak 1964; Nesterov's form as Sutskever et al. 2013).

        v' = γv − α(g + λθ);  θ' = θ + v';  with `nesterov`: θ' = θ + γv' − α(g + λθ)

    `learning_rate` α ≥ 0; `momentum_coef` γ in [0, 1]: with 0 no velocity is kept; `wdecay` λ ≥ 0;
    `nesterov` needs γ ≠ 0. The other options are `Optimizer`'s. Raises `ValueError` or `TypeError`.
    """

    rule = staticmethod(gradient_descent_momentum)
    learning_rate = Number(None, non_negative, "lr", "α ≥ 0", example=0.01)
    momentum_coef = Number(None, unit_interval, "momentum", "γ in [0, 1]: with 0 no velocity is kept", example=0.9)
    nesterov = Number(False, flag, meaning="Nesterov's form, for γ ≠ 0")

    def __init__(
        self,
        learning_rate: float,
        momentum_coef: float,
        stochastic_round: bool | int = False,
        wdecay: float = 0.0,
        gradient_clip_norm: float | None = None,
        gradient_clip_value: float | None = None,
        param_clip_value: float | None = None,
        name: str | None = None,
        schedule: Schedule | None = None,
        nesterov: bool = False,
        **options: Unpack[StorageOptions],
    ) -> None:
        self._take(locals())
        if nesterov and momentum_coef == 0:
            raise ValueError(
                "nesterov=True needs a momentum_coef other than 0. Received: momentum_coef=0. "
                "Give a momentum, such as 0.9, or leave nesterov out."
            )

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        return gradient_descent if values["momentum"] == 0 else gradient_descent_momentum
