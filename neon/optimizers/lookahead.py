"""Lookahead (Zhang et al. 2019) around any rule."""

from __future__ import annotations

from typing import Any

from neon.arguments import positive_integer, unit_interval
from neon.engine.program.declared import WEIGHT, State
from neon.engine.program.numbers import Number
from neon.optimizers.functions import equal, remainder, where
from neon.optimizers.transform import Transform


def lookahead(inner, w, g, slow_weight: Any = State(WEIGHT), *, lookahead_k, lookahead_alpha, step):  # type: ignore[no-untyped-def]
    """One step of Lookahead (Zhang et al. 2019, algorithm 1).

        w ← the rule's step
        every k steps:  slow_weight ← slow_weight + α·(w − slow_weight);  w ← slow_weight

    `step` is the number of this update of the tensor, from 1; slow_weight is the weight at first.
    """
    w = inner(w, g)
    due = where(equal(remainder(step, lookahead_k), 0), 1.0, 0.0)  # a number: elements choose nothing
    slow_weight = slow_weight + due * lookahead_alpha * (w - slow_weight)
    return (1 - due) * w + due * slow_weight, slow_weight


def evaluated(w, slow_weight):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """The weight at evaluation: the slow one."""
    return slow_weight


class Lookahead(Transform):
    """Lookahead (Zhang et al. 2019) around any rule: `Lookahead(AdamW(learning_rate=1e-3), k=6)`.

        θ' = the rule's step;  every k steps  φ' = φ + α(θ' − φ), θ' = φ'

    φ, the slow weight, is the weight at first. It is what is evaluated, in `evaluating` and between `eval` and `train`;
    every k steps the two are one. k counts the updates of each tensor. φ is kept in float32 (float64 of float64), so
    that weights of 16 bits are its rounding. `k` ≥ 1, `alpha` in [0, 1]. Raises `ValueError` or `TypeError` for others,
    and with `weight_average`: φ is an average.

    The steps are those of pytorch_optimizer's Lookahead. timm's begins φ at the weights after the first k steps,
    which are not pulled back, and both count the steps of a group.
    """

    around = staticmethod(lookahead)
    view = staticmethod(evaluated)
    k = Number(5, positive_integer, "lookahead_k", "k ≥ 1, the steps between two of the slow weight")
    alpha = Number(0.5, unit_interval, "lookahead_alpha", "α in [0, 1], of the slow weight's step")
