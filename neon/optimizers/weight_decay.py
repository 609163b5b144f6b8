"""The forms of weight decay, each a rule around any other, which is called without a decay of its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from neon.arguments import plain
from neon.engine.program.compose import Around, composed
from neon.engine.program.declared import GROUP, State
from neon.engine.program.options import FORMS, OF_SHAPES
from neon.engine.program.trace import Rule, signature
from neon.optimizers.functions import sign, where

_MAX_LR = State("lr", of=GROUP)


def coupled_decay(inner, w, g, *, weight_decay):  # type: ignore[no-untyped-def]
    """With a weight decay that passes through the rule's averages: g ← g + λ·w."""
    return inner(w, g + weight_decay * w, **_without(inner))


def decoupled_decay(inner, w, g, *, lr, weight_decay):  # type: ignore[no-untyped-def]
    """With a weight decay beside the rule's change Δ of w (Loshchilov & Hutter 2019): w ← w + Δ − lr·λ·w."""
    return w + (inner.change(w, g, **_without(inner)) - lr * weight_decay * w)


def relative_decay(inner, w, g, max_lr: Any = _MAX_LR, *, lr, weight_decay):  # type: ignore[no-untyped-def]
    """With a weight decay beside the rule's change Δ of w, whatever the size of rates: w ← w + Δ − lr/max_lr·λ·w."""
    share = lr / where(max_lr > 0, max_lr, 1.0)
    return w + (inner.change(w, g, **_without(inner)) - share * weight_decay * w), max_lr


def corrected_decay(inner, w, g, max_lr: Any = _MAX_LR, *, lr, weight_decay):  # type: ignore[no-untyped-def]
    """With a weight decay beside the rule's change Δ of w, by the rate's square: w ← w + Δ − lr²/max_lr·λ·w."""
    share = lr / where(max_lr > 0, max_lr, 1.0)
    return w + (inner.change(w, g, **_without(inner)) - share * lr * weight_decay * w), max_lr


def cautious_decay(inner, w, g, *, lr, weight_decay):  # type: ignore[no-untyped-def]
    """With cautious weight decay (Chen et al. 2025), Δ the rule's change of w.

    w ← w + Δ − lr·λ·w   where Δ does not lead away from 0: Δ·w ≤ 0
    w ← w + Δ            elsewhere
    """
    change = inner.change(w, g, **_without(inner))
    shrinks = where(sign(change) * w <= 0, 1.0, 0.0)  # by the sign: of small numbers the product would be 0
    return w + (change - lr * weight_decay * (shrinks * w))


_AROUND: dict[str, Around] = {
    "coupled": coupled_decay,
    "decoupled": decoupled_decay,
    "relative": relative_decay,
    "corrected": corrected_decay,
    "cautious": cautious_decay,
}
assert tuple(_AROUND) == FORMS


def _without(inner: Any) -> dict[str, float]:
    """The numbers with which a rule has no decay of its own."""
    return {"weight_decay": 0.0} if inner.reads("weight_decay") else {}


def with_decay(rule: Rule, form: str) -> Rule:
    """A rule with a form of weight decay; there is one of each pair."""
    return composed(_AROUND[form], rule)


def needs_rate(form: str) -> bool:
    """Whether the form goes by a learning rate."""
    return form != "coupled"


def is_decoupled(rule: Rule, values: Mapping[str, Any]) -> bool:
    """Whether a rule's own decay takes lr·λ·w from the weight and does nothing else: it is tried, on numbers."""
    form = signature(rule)
    if not {"lr", "weight_decay"} <= {*form.keywords}:
        return False
    given = {"step": 3, "epoch": 0, **dict.fromkeys(OF_SHAPES, True)}
    numbers = {name: plain(given.get(name, values.get(name, default))) for name, default in form.keywords.items()}
    states = [0.3 + 0.1 * place for place in range(len(form.states))]
    found = []
    for weight_decay in (0.0, 0.25):
        result = rule(1.5, 0.7, *states, **numbers | {"lr": 0.125, "weight_decay": weight_decay})
        found.append(result if isinstance(result, (tuple, list)) else (result,))
    (plain_w, *before), (w, *after) = found
    return before == after and math.isclose(plain_w - w, 0.125 * 0.25 * 1.5, rel_tol=1e-9)
