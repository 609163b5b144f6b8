"""Averaged SGD (Polyak & Juditsky 1992)."""

from __future__ import annotations

import math
from typing import Any

from neon.arguments import non_negative, within
from neon.engine.program.declared import WEIGHT, State
from neon.engine.program.numbers import Number
from neon.engine.program.spaces import TENSOR
from neon.optimizers.functions import maximum
from neon.optimizers.optimizer import Optimizer


def asgd(  # type: ignore[no-untyped-def]
    w,
    g,
    eta: Any = State("lr", of=TENSOR),
    mu: Any = State(1.0, of=TENSOR),
    ax: Any = State(WEIGHT),
    *,
    lr,
    lambd,
    alpha,
    t0,
    step,
):
    """One step of averaged SGD (Polyak & Juditsky 1992; the rates are Bottou's), as torch has it.

        w   ← w − (ληw + ηg)
        ax  ← ax + μ·(w − ax)
        eta ← lr/(1 + λ·lr·t)^α,  mu ← 1/max(1, t − t₀),  each one number of the tensor, for its next step

    `lambd` is λ, `alpha` α, `t0` t₀, η and μ are eta and mu of the step before, at first lr and 1: a new rate acts one
    step late. `step` is t, the number of this update of the tensor, from 1; ax is the mean of w from t₀ on.

    >>> numbers = dict(lr=0.1, lambd=0.5, alpha=0.75, t0=1.0, step=3)
    >>> w, eta, mu, ax = asgd(1.0, 0.5, 0.2, 0.25, 0.8, **numbers)
    >>> round(w, 8), round(eta, 8), mu, round(ax, 8)
    (0.8, 0.09004853, 0.5, 0.8)
    """
    w = w - (lambd * eta * w + eta * g)
    ax = (1 - mu) * ax + mu * w
    return w, lr / (1 + lambd * lr * step) ** alpha, 1 / maximum(1.0, step - t0), ax


def finite(name: str, value: Any) -> float:
    """A number."""
    return within(name, value, -math.inf, math.inf, "a finite number")


class ASGD(Optimizer):
    """Averaged SGD (Polyak & Juditsky 1992): descent by rates that fall, and the mean of where it has been.

        θ' = θ − η(g + λθ);  ā' = ā + μ(θ' − ā);  then η = α/(1 + λαt)^p and μ = 1/max(1, t − t₀)

    The mean ā, of the weights from t₀ on, is kept as the state `ax`. A new rate acts one step late, as in torch. The
    other options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(asgd)
    learning_rate = Number(0.01, non_negative, "lr", "α ≥ 0")
    lambd = Number(1e-4, finite, meaning="λ: a decay, and how soon rates fall")
    power = Number(0.75, finite, "alpha", "p, how fast rates fall")
    t0 = Number(1e6, finite, meaning="t₀, the step at which averaging begins")
