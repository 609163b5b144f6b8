"""LARS (You, Gitman & Ginsburg 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neon.arguments import flag, non_negative, unit_interval
from neon.engine.program.numbers import Number
from neon.engine.program.trace import Rule
from neon.optimizers.functions import equal, minimum, norm, where
from neon.optimizers.optimizer import Optimizer


def _adapted(  # type: ignore[no-untyped-def]
    w, g, lr, weight_decay, trust_coefficient, eps, trust_clip, always_adapt, adapt_vectors, matrix
):
    """What LARS descends along, before the ratio of the tensor, and that ratio."""
    if not (matrix or adapt_vectors):
        return g, 1.0
    size, length = norm(w), norm(g)
    ratio = trust_coefficient * size / where(equal(length, 0), 1, length + weight_decay * size + eps)
    ratio = where(equal(size, 0), 1, where(equal(length, 0), 1, ratio))
    if trust_clip:
        ratio = where(equal(lr, 0), 1, minimum(ratio / where(equal(lr, 0), 1, lr), 1))
    if not always_adapt:
        ratio = where(equal(weight_decay, 0), 1, ratio)
    return g + weight_decay * w, ratio


def lars(  # type: ignore[no-untyped-def]
    w, g, *, lr, weight_decay, trust_coefficient, eps, trust_clip, always_adapt=True, adapt_vectors=True, matrix
):
    """One step of LARS (You, Gitman & Ginsburg 2017, algorithm 1) without momentum.

        r = η·‖w‖ / (‖g‖ + λ·‖w‖ + ε) over the whole tensor; 1 where one of the norms is 0
        w ← w − lr·r·(g + λ·w)

    `trust_coefficient` is η. `trust_clip` has min(r/lr, 1) for r. Without `always_adapt` r is 1 where λ is 0; without
    `adapt_vectors` r is 1 and λ is 0 for tensors of fewer than two dimensions.

    >>> numbers = dict(trust_coefficient=0.01, eps=0.25, trust_clip=False)
    >>> round(lars(2.0, 0.5, lr=4.0, weight_decay=0.5, **numbers, matrix=True), 8)
    1.93142857
    >>> [lars(2.0, 0.5, lr=0.5, weight_decay=0.0, **numbers, always_adapt=on, matrix=True) for on in (True, False)]
    [1.9933333333333334, 1.75]
    >>> lars(2.0, 0.5, lr=0.5, weight_decay=0.5, **numbers, adapt_vectors=False, matrix=False)
    1.75
    >>> lars(0.0, 0.5, lr=0.5, weight_decay=0.5, **numbers, matrix=True)
    -0.25
    """
    forms = (trust_coefficient, eps, trust_clip, always_adapt, adapt_vectors, matrix)
    update, ratio = _adapted(w, g, lr, weight_decay, *forms)
    return w - lr * ratio * update


def lars_momentum(  # type: ignore[no-untyped-def]
    w, g, momentum_buffer,
    *, lr, momentum, weight_decay, trust_coefficient, eps,
    dampening=0.0, nesterov=False, trust_clip=False, always_adapt=True, adapt_vectors=True, matrix, step,
):  # fmt: skip
    """One step of LARS (You, Gitman & Ginsburg 2017, algorithm 1), with the rate outside of the momentum.

        d               = r·(g + λ·w), with r as without momentum
        momentum_buffer ← μ·momentum_buffer + (1−τ)·d     with τ = 0 in the first step
        w               ← w − lr·momentum_buffer          or, with `nesterov`, w − lr·(d + μ·momentum_buffer)

    `dampening` is τ; `step` is the number of this update of the tensor, from 1.

    >>> numbers = dict(lr=4.0, momentum=0.9, weight_decay=0.5, trust_coefficient=0.01, eps=0.25, dampening=0.25)
    >>> w, momentum_buffer = lars_momentum(2.0, 0.5, 0.1, **numbers, matrix=True, step=2)
    >>> round(w, 8), round(momentum_buffer, 8)
    (1.58857143, 0.10285714)
    >>> w, momentum_buffer = lars_momentum(2.0, 0.5, 0.0, **numbers, nesterov=True, matrix=True, step=1)
    >>> round(w, 8), round(momentum_buffer, 8)
    (1.86971429, 0.01714286)
    """
    forms = (trust_coefficient, eps, trust_clip, always_adapt, adapt_vectors, matrix)
    update, ratio = _adapted(w, g, lr, weight_decay, *forms)
    momentum_buffer = momentum * momentum_buffer + where(equal(step, 1), 1, 1 - dampening) * ratio * update
    along = ratio * update + momentum * momentum_buffer if nesterov else momentum_buffer
    return w - lr * along, momentum_buffer


class LARS(Optimizer):
    """LARS (You, Gitman & Ginsburg 2017): momentum with steps of a share of each tensor's size, for large batches.

        d = η·‖θ‖/(‖g‖ + λ‖θ‖ + ε)·(g + λθ);  m' = μm + (1−τ)d;  θ' = θ − αm';  with `nesterov`: θ' = θ − α(d + μm')

    The ratio is 1 where a norm is 0. It is that of each whole tensor, whatever λ is: timm adapts nothing where λ is 0
    and `always_adapt` is not given, which is `always_adapt=False` here. pytorch_optimizer has ε = 0 and
    `adapt_vectors=False`, and dampens the first step too. The other options are `Optimizer`'s. Raises `ValueError` or
    `TypeError` for others.
    """

    rule = staticmethod(lars_momentum)
    learning_rate = Number(1.0, non_negative, "lr", "α ≥ 0")
    momentum_coef = Number(0.9, unit_interval, "momentum", "μ in [0, 1]: with 0 no buffer is kept")
    wdecay = Number(0.0, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    trust_coefficient = Number(0.001, non_negative, meaning="η ≥ 0")
    epsilon = Number(1e-8, non_negative, "eps", "ε ≥ 0")
    dampening = Number(0.0, unit_interval, meaning="τ in [0, 1], of all steps but the first")
    nesterov = Number(False, flag, meaning="Nesterov's form")
    trust_clip = Number(False, flag, meaning="min(r/α, 1) for the ratio r (LARC)")
    always_adapt = Number(True, flag, meaning="whether the ratio is another than 1 where λ is 0")
    adapt_vectors = Number(True, flag, meaning="whether tensors of fewer than two dimensions have ratio and decay")

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        return lars if values["momentum"] == 0 else lars_momentum
