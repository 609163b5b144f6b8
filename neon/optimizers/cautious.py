"""Cautious steps (Liang et al. 2024) around any rule."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neon.engine.program.options import DECAY
from neon.engine.program.trace import Rule
from neon.optimizers.functions import maximum, mean, sign, where
from neon.optimizers.transform import Transform


def cautious(inner, w, g):  # type: ignore[no-untyped-def]
    """One cautious step (Liang et al. 2024, algorithm 1, with timm's bound of the share).

    Δ    the rule's change of w
    mask = 1 where Δ·g < 0, else 0
    w    ← w + Δ·mask / max(mean of mask over the tensor, 0.001)
    """
    change = inner.change(w, g)
    mask = where(sign(change) * g < 0, 1.0, 0.0)  # by the sign: of small numbers the product would be 0
    return w + change * (mask * (1 / maximum(mean(mask), 1e-3)))


class Cautious(Transform):
    """Cautious steps (Liang et al. 2024) around any rule: `Cautious(AdamW(learning_rate=1e-3))`.

        θ' = θ + Δ·mask / max(mean of mask, 0.001),  mask = 1 where Δ·g < 0, else 0

    What of the rule's change Δ would go up the gradient stays; the rest grows by the share of the tensor that moves.
    Weight decay is not masked: neither that of a rule that subtracts αλθ by itself, as AdamW and Lion do, nor one that
    has a `decay_form`. A `wdecay` that is added to the gradient counts as gradient; what is within a step as LAMB's
    and Prodigy's is masked with it. The steps are those of timm with `caution=True`, but where its product of Δ and g
    is too small for the weight's format, and of LAMB, which masks within the norm. Gradient descent without momentum
    timm leaves as it is; here elements without a gradient make the others' steps longer.
    """

    around = staticmethod(cautious)
    _decay_beside = True

    def rule_of(self, values: Mapping[str, Any]) -> Rule:
        form = values.get(DECAY)
        if form is None and self._decouples(values):
            form = "decoupled"
        return self._decayed(self.select_rule(values), form)
