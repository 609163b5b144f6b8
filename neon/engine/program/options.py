"""Options as graph transforms: they compose around any rule and stay in its pass over memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from neon.engine.program.graph import Node, Scope, apply, load, scalar, sum_of_squares

# Scopes of reductions: each tensor alone; all whose gradients are looked through; all that are clipped by the
# norm of the step before.
ALONE, GUARD, PREVIOUS = Scope("tensor"), Scope("guard"), Scope("previous")
# The option by which weights are averaged, and the state that holds the average.
AVERAGE = "weight_average"
# What groups call `lr_scale`: where a group has that word, schedulers of other libraries multiply its `lr` themselves.
SCALE = "rate_scale"


@dataclass(frozen=True)
class Options:
    """Which options are present; their numbers are read at each step.

    `clip_norms` names the bounds of the norms to clip by, from the widest set of tensors to the
    narrowest. `unscale` divides by the scale that the loss was multiplied with; `guard` has the plan
    look for gradients that are not finite; `clip_previous` clips by the norm of the step before.
    """

    maximize: bool = False
    unscale: bool = False
    guard: bool = False
    clip_previous: bool = False
    batch_mean: bool = False
    clip_norms: tuple[str, ...] = ()
    clip_value: bool = False
    weight_decay: bool = False
    param_clip: bool = False
    weight_average: bool = False
    rate_scale: bool = False


def before(w: Node, g: Node, chosen: Options) -> Node:
    """The gradient that the rule sees: scale, batch mean, clip by norm, clip by value, then weight decay."""
    raw = g = _mean(g, chosen)
    factor = _previous_factor(raw) if chosen.clip_previous else None
    for level, bound in enumerate(chosen.clip_norms):
        # ‖f·g‖ = f·‖g‖: a chain of norms costs one reading of the gradients.
        norm = apply("sqrt", sum_of_squares(raw, Scope("clip_scope", level)))
        if factor is not None:
            norm = factor * norm
        clipped = apply("minimum", 1.0, scalar(bound) / norm)
        factor = clipped if factor is None else factor * clipped
    if factor is not None:
        g = g * factor
    if chosen.clip_value:
        g = _clip(g, scalar("gradient_clip_value"))
    if chosen.weight_decay:
        g = g + scalar("weight_decay") * w
    return g


def guard(g: Node, chosen: Options) -> Node | None:
    """A sum over each tensor that is not finite where an element of the gradient is not; g² itself may overflow."""
    return sum_of_squares(g * 0.0, GUARD) if chosen.guard else None


def _mean(g: Node, chosen: Options) -> Node:
    if chosen.maximize:
        g = -g
    if chosen.unscale:
        g = g * (1.0 / scalar("grad_scale"))
    return g / scalar("batch_size") if chosen.batch_mean else g


def _previous_factor(g: Node) -> Node:
    """min(1, k/‖g‖) with ‖g‖ of the step before; in the first step, that of this launch stands in for it."""
    own, previous = apply("sqrt", sum_of_squares(g, PREVIOUS)), scalar("previous_norm")
    norm = apply("where", previous > 0.0, previous, own)
    return apply("minimum", 1.0, scalar("gradient_clip_previous_norm") / norm)


def rate(lr: Any, chosen: Options) -> Any:
    """The learning rate that the rule sees: times its scale where there is one, on the host as all numbers are."""
    return lr * scalar(SCALE) if chosen.rate_scale else lr


def after(w: Node, chosen: Options) -> Node:
    """The weight that is stored: clipped where asked."""
    return _clip(w, scalar("param_clip_value")) if chosen.param_clip else w


def average(w: Node) -> Node:
    """The average of weights once `w`, the weight before it is rounded for storage, is in it."""
    kept = load(AVERAGE)
    return kept + (1.0 - scalar(AVERAGE)) * (w - kept)


def _clip(x: Node, bound: Node) -> Node:
    bound = abs(bound)
    return apply("maximum", apply("minimum", x, bound), -bound)
