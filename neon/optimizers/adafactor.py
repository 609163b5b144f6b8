"""Adafactor (Shazeer & Stern 2018), as torch has it and as other libraries do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from typing_extensions import Unpack

from neon.arguments import beta, flag, non_negative, within
from neon.engine.program.declared import State
from neon.engine.program.numbers import Number
from neon.engine.program.spaces import COLUMNS, ROWS
from neon.engine.program.trace import Rule
from neon.optimizers.functions import machine_epsilon, maximum, mean, mean_square, minimum, rms, sqrt
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.signatures import ScheduleOptions


def _delta(  # type: ignore[no-untyped-def]
    w, g, row_var, col_var, variance,
    lr, beta2_decay, eps, d, relative_step, scale_parameter, eps_in_squares, matrix, step,
):  # fmt: skip
    """What Adafactor subtracts from w beside the decay, and the new states."""
    eps1, eps2 = machine_epsilon(w) if eps[0] is None else eps[0], eps[1]
    inside, least = (eps1, 0.0) if eps_in_squares else (0.0, eps1)
    share = step**beta2_decay
    if matrix:
        row_var = (1 - share) * row_var + share * (mean_square(g, over=ROWS) + inside)
        col_var = (1 - share) * col_var + share * (mean_square(g, over=COLUMNS) + inside)
        # A root and a division for each row and column: elements are left with products.
        scale = 1 / sqrt(row_var / maximum(mean(row_var, over=COLUMNS), least)) * (1 / sqrt(col_var))
    else:
        variance = (1 - share) * variance + share * (g * g + inside)
        scale = 1 / sqrt(variance)
    u = (scale if eps_in_squares else minimum(scale, 1 / least)) * g
    rate = minimum(lr, 1 / sqrt(step)) if relative_step else lr
    if scale_parameter:
        rate = maximum(eps2, rms(w)) * rate
    return rate / maximum(1.0, rms(u) / d) * u, row_var, col_var, variance


def adafactor(  # type: ignore[no-untyped-def]
    w, g, row_var=State(of=ROWS), col_var=State(of=COLUMNS), variance=0.0,
    *, lr, beta2_decay, eps, d, weight_decay,
    relative_step=True, scale_parameter=True, eps_in_squares=False, matrix, step,
):  # fmt: skip
    """One step of Adafactor (Shazeer & Stern 2018, algorithms 4 and 5, with torch's places of ε₁).

        row_var  ← (1 − t^τ)·row_var + t^τ·(mean of g² over each row)          of tensors of two dimensions and more
        col_var  ← (1 − t^τ)·col_var + t^τ·(mean of g² over each column)       of these
        v        = row_var·col_var / max(mean of row_var, ε₁)                  of these
        variance ← (1 − t^τ)·variance + t^τ·g²;  v = variance                  of others
        u        = g / max(√v, ε₁)
        w        ← w − (lr·λ·w + max(ε₂, rms(w))·min(lr, 1/√t) · u / max(1, rms(u)/d))

    `beta2_decay` is τ ≤ 0, `eps` the pair of ε₁ and ε₂, and t = `step` the number of this update of the tensor, from 1.
    With ε₁ = None it is the precision of the weight's format. Rows and columns are those of the last two dimensions.
    With `eps_in_squares` ε₁ is added to g² and to nothing else. Without `relative_step` lr stands for min(lr, 1/√t),
    without `scale_parameter` 1 for max(ε₂, rms(w)).

    >>> numbers = dict(lr=0.1, beta2_decay=-0.8, eps=(1e-3, 1e-3), d=2.0, weight_decay=0.5, step=3)
    >>> w, row_var, col_var, _ = adafactor(2.0, 0.5, 0.1, 0.2, **numbers, matrix=True)
    >>> round(w, 8), round(row_var, 8), round(col_var, 8)
    (1.68716764, 0.16228655, 0.22076218)
    >>> w, _, _, variance = adafactor(2.0, 0.5, variance=0.9, **numbers, matrix=False)
    >>> round(w, 8), round(variance, 8)
    (1.774021, 0.63009163)
    """
    numbers = (lr, beta2_decay, eps, d, relative_step, scale_parameter, eps_in_squares, matrix, step)
    delta, *states = _delta(w, g, row_var, col_var, variance, *numbers)
    return w - (lr * weight_decay * w + delta), *states


def adafactor_momentum(  # type: ignore[no-untyped-def]
    w, g, row_var=State(of=ROWS), col_var=State(of=COLUMNS), variance=0.0, exp_avg=0.0,
    *, lr, beta2_decay, eps, d, weight_decay,
    relative_step, scale_parameter, eps_in_squares, update_momentum, matrix, step,
):  # fmt: skip
    """One step of Adafactor with an average of what is subtracted, the decay aside.

        exp_avg ← μ·exp_avg + (1 − μ)·Δ,  Δ what Adafactor subtracts;  w ← w − (lr·λ·w + exp_avg)

    >>> numbers = dict(lr=0.1, beta2_decay=-0.8, eps=(1e-3, 1e-3), d=2.0, weight_decay=0.5, step=3, update_momentum=0.9)
    >>> forms = dict(relative_step=False, scale_parameter=False, eps_in_squares=True, matrix=False)
    >>> w, *_, exp_avg = adafactor_momentum(2.0, 0.5, 0.0, 0.0, 0.9, 0.1, **numbers, **forms)
    >>> round(w, 8), round(exp_avg, 8)
    (1.80370312, 0.09629688)
    """
    numbers = (lr, beta2_decay, eps, d, relative_step, scale_parameter, eps_in_squares, matrix, step)
    delta, *states = _delta(w, g, row_var, col_var, variance, *numbers)
    exp_avg = update_momentum * exp_avg + (1 - update_momentum) * delta
    return w - (lr * weight_decay * w + exp_avg), *states, exp_avg


def optional_epsilon(name: str, value: Any) -> float | None:
    """A number of at least 0, or None."""
    return None if value is None else non_negative(name, value)


def non_positive(name: str, value: Any) -> float:
    """A number of at most 0."""
    return within(name, value, -math.inf, 0.0, "at most 0")


def at_least_one(name: str, value: Any) -> float:
    """A number of at least 1."""
    return within(name, value, 1.0, math.inf, "at least 1")


class Adafactor(Optimizer):
    """Adafactor (Shazeer & Stern 2018): of the mean of squares of a matrix, those of its rows and columns are kept.

        v = R'C' / max(mean R', ε₁),  R', C' means of g² over rows and columns;  u = g / max(√v, ε₁)
        θ' = θ − αλθ − max(ε₂, rms(θ))·min(α, 1/√t) · u / max(1, rms(u)/d)

    t counts the updates of each tensor, from 1. Tensors of fewer than two dimensions keep v itself. The defaults are
    torch's. Other libraries' forms: transformers has `epsilon_1=1e-30, eps_in_squares=True` and, with its
    `relative_step=False`, the same here, `scale_parameter=False`; its weight decay is multiplied by rms(θ) too. With
    `momentum_coef` what is subtracted, the decay aside, is averaged. The other options are `Optimizer`'s. Raises as
    that does.
    """

    rule = staticmethod(adafactor_momentum)
    learning_rate = Number(0.01, non_negative, "lr", "α ≥ 0")
    beta2_decay = Number(-0.8, non_positive, meaning="τ ≤ 0: means take in the share t^τ of what is new")
    epsilon_1 = Number(None, optional_epsilon, "eps[0]", "ε₁ ≥ 0; None: the weight's precision", optional=True)
    epsilon_2 = Number(1e-3, non_negative, "eps[1]", "ε₂ ≥ 0")
    d = Number(1.0, at_least_one, meaning="d ≥ 1, the largest rms(u)")
    wdecay = Number(0.0, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    momentum_coef = Number(0.0, beta, "update_momentum", "μ in [0, 1): with 0 no average is kept")
    relative_step = Number(True, flag, meaning="min(α, 1/√t) in place of α")
    scale_parameter = Number(True, flag, meaning="times max(ε₂, rms(θ))")
    eps_in_squares = Number(False, flag, meaning="ε₁ is added to g², and nothing is compared with it")

    def __init__(
        self,
        learning_rate: float = 0.01,
        beta2_decay: float = -0.8,
        epsilon_1: float | None = None,
        epsilon_2: float = 1e-3,
        d: float = 1.0,
        *,
        wdecay: float = 0.0,
        momentum_coef: float = 0.0,
        relative_step: bool = True,
        scale_parameter: bool = True,
        eps_in_squares: bool = False,
        stochastic_round: bool | int = False,
        gradient_clip_norm: float | None = None,
        gradient_clip_value: float | None = None,
        param_clip_value: float | None = None,
        name: str | None = None,
        **options: Unpack[ScheduleOptions],
    ) -> None:
        self._take(locals())

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        return adafactor if values["update_momentum"] == 0 else adafactor_momentum
