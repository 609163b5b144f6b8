"""Rprop (Riedmiller & Braun 1993)."""

from __future__ import annotations

import math
from typing import Any

from neon.arguments import non_negative, positive, within
from neon.engine.program.declared import State
from neon.engine.program.numbers import Number
from neon.optimizers.functions import clip, sign, where
from neon.optimizers.optimizer import Optimizer


def rprop(w, g, prev, step_size=State("lr"), *, lr, etas, step_sizes):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """One step of Rprop (Riedmiller & Braun 1993, without going back; Igel & Hüsken's iRprop−), as torch has it.

        s         = sign(g)·sign(prev)
        step_size ← step_size·η⁺ where s > 0, step_size·η⁻ where s < 0; within [step_sizes[0], step_sizes[1]]
        g         ← 0 where s < 0
        w         ← w − sign(g)·step_size;  prev ← g

    `etas` are η⁻ and η⁺. The first step_size is the lr that there is when the state is made; later ones do not matter.

    >>> numbers = dict(lr=0.1, etas=(0.5, 1.2), step_sizes=(1e-6, 50.0))
    >>> [[round(value, 8) for value in rprop(1.0, 0.5, prev, 0.2, **numbers)] for prev in (0.3, -0.3)]
    [[0.76, 0.5, 0.24], [1.0, 0.0, 0.1]]
    """
    turn = sign(g) * sign(prev)
    size = clip(where(turn > 0, etas[1], where(turn < 0, etas[0], 1.0)) * step_size, *step_sizes)
    g = where(turn < 0, 0.0, g)
    return w - sign(g) * size, g, size


def shrinks(name: str, value: Any) -> float:
    """A number in (0, 1)."""
    return within(name, positive(name, value), 0.0, math.nextafter(1.0, 0.0), "in (0, 1)")


def grows(name: str, value: Any) -> float:
    """A number above 1."""
    return within(name, value, math.nextafter(1.0, 2.0), math.inf, "greater than 1")


class Rprop(Optimizer):
    """Rprop (Riedmiller & Braun 1993): steps by signs, each weight's as long as these agree; for whole batches.

        δ' = δη⁺ where g has the sign of before, δη⁻ where it has the other, and g = 0 there;  θ' = θ − sign(g)δ'

    Steps begin with α, stay within [δ₋, δ₊], and no schedule moves them. The other options are `Optimizer`'s. Raises
    `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(rprop)
    learning_rate = Number(0.01, non_negative, "lr", "α ≥ 0, the first steps")
    shrink = Number(0.5, shrinks, "etas[0]", "η⁻ in (0, 1)")
    grow = Number(1.2, grows, "etas[1]", "η⁺ > 1")
    least = Number(1e-6, non_negative, "step_sizes[0]", "δ₋ ≥ 0")
    most = Number(50.0, non_negative, "step_sizes[1]", "δ₊ ≥ 0")
