"""Options as graph transforms: they compose around any rule and stay in its pass over memory."""

from __future__ import annotations

from dataclasses import dataclass

from neon.engine.graph import Node, apply, scalar, sum_of_squares


@dataclass(frozen=True)
class Options:
    """Which options are present; their numbers are read at each step.

    `clip_norms` names the bounds of the norms to clip by, from the widest set of tensors to the
    narrowest.
    """

    maximize: bool = False
    batch_mean: bool = False
    clip_norms: tuple[str, ...] = ()
    clip_value: bool = False
    weight_decay: bool = False
    param_clip: bool = False


def clip_scope(level: int) -> str:
    """The name of the set of tensors whose norm is taken at a level of `clip_norms`."""
    return f"clip_scope[{level}]"


def before(w: Node, g: Node, chosen: Options) -> Node:
    """The gradient that the rule sees: batch mean, clip by norm, clip by value, then weight decay."""
    if chosen.maximize:
        g = -g
    if chosen.batch_mean:
        g = g / scalar("batch_size")
    factor: Node | None = None
    raw = g
    for level, bound in enumerate(chosen.clip_norms):
        # ‖f·g‖ = f·‖g‖: a chain of norms costs one reading of the gradients.
        norm = apply("sqrt", sum_of_squares(raw, clip_scope(level)))
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


def after(w: Node, chosen: Options) -> Node:
    """The weight that is stored: clipped where asked."""
    return _clip(w, scalar("param_clip_value")) if chosen.param_clip else w


def _clip(x: Node, bound: Node) -> Node:
    bound = abs(bound)
    return apply("maximum", apply("minimum", x, bound), -bound)
