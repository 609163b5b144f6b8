"""Schedule-Free (Defazio et al. 2024) around any rule: no schedule of rates; weights at evaluation are averages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from neon.arguments import between, non_negative, whole_number
from neon.engine.program.declared import GROUP, WEIGHT, State
from neon.engine.program.numbers import Number, check_values
from neon.engine.program.options import DECAY
from neon.engine.program.trace import Rule
from neon.engine.program.views import View
from neon.messages import received, shortened
from neon.optimizers.adam import adam, adamw
from neon.optimizers.functions import maximum, sqrt, where
from neon.optimizers.gradient_descent import gradient_descent, gradient_descent_momentum
from neon.optimizers.transform import Transform

# As the packages have them in a group; the largest rate is −1 before the first.
_ZERO, _LEAST, _Z = State(0.0, of=GROUP), State(-1.0, of=GROUP), State(WEIGHT)


def averaging(k, lr_max, weight_sum, *, lr, warmup_steps, r, weight_lr_power):  # type: ignore[no-untyped-def]
    """The rate of step k+1, the share c that its z has in the average x, and the numbers of the next.

        γ          ← lr·min(1, (k+1)/warmup_steps);  lr_max ← max(lr_max, γ)
        weight     ← (k+1)^r · lr_max^power
        weight_sum ← weight_sum + weight
        c          ← weight/weight_sum               or 0, where the sum is 0

    >>> averaging(1.0, 0.5, 0.25, lr=0.2, warmup_steps=0, r=0.0, weight_lr_power=2.0)
    (0.2, 0.5, (2.0, 0.5, 0.5))
    """
    rate = lr * where(k < warmup_steps, (k + 1) / maximum(warmup_steps, 1.0), 1.0)
    lr_max = maximum(lr_max, rate)
    weight = (k + 1) ** r * lr_max**weight_lr_power
    weight_sum = weight_sum + weight
    return rate, weight / where(weight_sum > 0, weight_sum, 1.0), (k + 1, lr_max, weight_sum)


def schedule_free(  # type: ignore[no-untyped-def]
    inner, w, g, z=_Z, k=_ZERO, lr_max=_LEAST, weight_sum=_ZERO,
    *, lr, momentum, warmup_steps, r, weight_lr_power,
):  # fmt: skip
    """One step of Schedule-Free around a rule (Defazio et al. 2024, section 2): gradients are those at y, the weight.

        z' ← the rule's step from z, with the rate γ
        x  ← (1−c)·x + c·z'
        y  ← β·x + (1−β)·z'  =  y + c·(z − y) + (1 − β·(1−c))·(z' − z)

    γ and c are those of `averaging`, β is `momentum`, and x is not kept: x = y + (1 − 1/β)·(z − y).
    """
    numbers = {"lr": lr, "warmup_steps": warmup_steps, "r": r, "weight_lr_power": weight_lr_power}
    rate, c, kept = averaging(k, lr_max, weight_sum, **numbers)
    new = inner(z, g, lr=rate)
    return w + c * (z - w) + (1 - momentum * (1 - c)) * (new - z), new, *kept


def sgd_schedule_free(  # type: ignore[no-untyped-def]
    w, g, z=_Z, k=_ZERO, lr_max=_LEAST, weight_sum=_ZERO,
    *, lr, momentum, warmup_steps, r, weight_lr_power,
):  # fmt: skip
    """One step of Schedule-Free SGD (Defazio et al. 2024, equations 2 to 4), SGDScheduleFree of schedulefree 1.4.1.

        y ← y + c·(z − y) − γ·(1 − β·(1−c))·g
        z ← z − γ·g

    γ and c are those of `averaging`, β is `momentum`, y is the weight.

    >>> numbers = dict(lr=0.1, momentum=0.9, warmup_steps=0, r=0.0, weight_lr_power=2.0)
    >>> [round(number, 8) for number in sgd_schedule_free(1.0, 0.5, 2.0, 1.0, 0.1, 0.01, **numbers)]
    [1.4725, 1.95, 2.0, 0.1, 0.02]
    """
    numbers = {"lr": lr, "warmup_steps": warmup_steps, "r": r, "weight_lr_power": weight_lr_power}
    rate, c, kept = averaging(k, lr_max, weight_sum, **numbers)
    return w + c * (z - w) - rate * (1 - momentum * (1 - c)) * g, z - rate * g, *kept


def adam_schedule_free(  # type: ignore[no-untyped-def]
    w, g, z=_Z, k=_ZERO, lr_max=_LEAST, weight_sum=_ZERO, exp_avg_sq=0.0,
    *, lr, betas, eps, warmup_steps, r, weight_lr_power,
):  # fmt: skip
    """One step of Schedule-Free Adam: Schedule-Free AdamW without decay."""
    numbers = {"lr": lr, "warmup_steps": warmup_steps, "r": r, "weight_lr_power": weight_lr_power}
    rate, c, kept = averaging(k, lr_max, weight_sum, **numbers)
    u, exp_avg_sq = _direction(g, exp_avg_sq, k, betas, eps)
    return w + c * (z - w) - rate * (1 - betas[0] * (1 - c)) * u, z - rate * u, *kept, exp_avg_sq


def adamw_schedule_free(  # type: ignore[no-untyped-def]
    w, g, z=_Z, k=_ZERO, lr_max=_LEAST, weight_sum=_ZERO, exp_avg_sq=0.0,
    *, lr, betas, eps, weight_decay, warmup_steps, r, weight_lr_power,
):  # fmt: skip
    """One step of Schedule-Free AdamW (Defazio et al. 2024, algorithm 1), AdamWScheduleFree of schedulefree 1.4.1.

        exp_avg_sq ← β₂·exp_avg_sq + (1−β₂)·g²
        u          ← g / (√(exp_avg_sq/(1−β₂^(k+1))) + ε) + λ·y
        y          ← y + c·(z − y) − γ·(1 − β₁·(1−c))·u
        z          ← z − γ·u

    γ and c are those of `averaging`, y is the weight. There is no mean of gradients: β₁ interpolates.

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    >>> numbers |= dict(warmup_steps=0, r=0.0, weight_lr_power=2.0)
    >>> [round(number, 8) for number in adamw_schedule_free(1.0, 0.5, 2.0, 1.0, 0.1, 0.01, 0.2, **numbers)]
    [1.48583633, 1.97424787, 2.0, 0.1, 0.02, 0.2005]
    """
    numbers = {"lr": lr, "warmup_steps": warmup_steps, "r": r, "weight_lr_power": weight_lr_power}
    rate, c, kept = averaging(k, lr_max, weight_sum, **numbers)
    u, exp_avg_sq = _direction(g, exp_avg_sq, k, betas, eps)
    u = u + weight_decay * w
    return w + c * (z - w) - rate * (1 - betas[0] * (1 - c)) * u, z - rate * u, *kept, exp_avg_sq


def _direction(g, exp_avg_sq, k, betas, eps):  # type: ignore[no-untyped-def]
    """The gradient over the root of the corrected mean of squares, and that mean."""
    exp_avg_sq = betas[1] * exp_avg_sq + (1 - betas[1]) * g * g
    correction = 1 / sqrt(1 - betas[1] ** (k + 1))
    return g / (sqrt(exp_avg_sq) * correction + eps), exp_avg_sq


def averaged_by_momentum(w, z, *, momentum):  # type: ignore[no-untyped-def]
    """The weight at evaluation: x = y + (1 − 1/β)·(z − y).

    >>> round(averaged_by_momentum(1.0, 2.0, momentum=0.8), 8)
    0.75
    """
    return w + (1 - 1 / momentum) * (z - w)


def averaged_by_betas(w, z, *, betas):  # type: ignore[no-untyped-def]
    """The weight at evaluation: x = y + (1 − 1/β₁)·(z − y)."""
    return averaged_by_momentum(w, z, momentum=betas[0])


class _Form(NamedTuple):
    """A rule, what its weights are at evaluation, and the number by which it interpolates."""

    rule: Rule
    view: View
    beta: str


_BY_MOMENTUM = averaged_by_momentum, "momentum"
# Rules of which the own momentum interpolates, and no mean of gradients is kept.
_WRITTEN = {
    adam: _Form(adam_schedule_free, averaged_by_betas, "betas"),
    adamw: _Form(adamw_schedule_free, averaged_by_betas, "betas"),
    gradient_descent: _Form(sgd_schedule_free, *_BY_MOMENTUM),
    gradient_descent_momentum: _Form(sgd_schedule_free, *_BY_MOMENTUM),
}


class ScheduleFree(Transform):
    """Schedule-Free (Defazio et al. 2024) around any rule: `ScheduleFree(AdamW(learning_rate=0.0025, beta_1=0.95))`.

        z' ← the rule's step from z, with the gradient at y;  x' = (1−c)x + c·z';  y' = β·x' + (1−β)z'

    The weights are y in training and x at evaluation: `eval` and `train`, or `evaluating`, change them over. Instead of
    a schedule the rate stays, after `warmup_steps` in which it rises. z_t has in the average x the weight t^r·γ^power,
    with the largest rate γ so far and `weight_lr_power`.

    Around Adam and AdamW, and around GradientDescentMomentum, the rule's own β₁ or momentum is β, and no mean of
    gradients is kept: the steps are those of AdamWScheduleFree and SGDScheduleFree, with decay at y. Any other rule
    makes its step as it is, its own decay at z, with `momentum` β in (0, 1). A `wdecay` that is added to the gradient
    acts at y.

    x is computed from the weights: of 16 bits they need `master="split"`. Raises `ValueError` or `TypeError` for other
    numbers, for Nesterov's form, and with `weight_average`.
    """

    around = staticmethod(schedule_free)
    momentum = Number(0.9, between, meaning="β in (0, 1), of rules without one of their own")
    warmup_steps = Number(0, whole_number, meaning="steps in which the rate rises to lr")
    r = Number(0.0, non_negative, meaning="r ≥ 0: later weights count more")
    weight_lr_power = Number(2.0, non_negative, meaning="the power of the rate by which weights count")

    def compose(self, rule: Rule) -> Rule:
        written = _WRITTEN.get(rule)
        return super().compose(rule) if written is None else written.rule

    @property
    def _is_composed(self) -> bool:
        return self.inner._widest_rule not in _WRITTEN

    def _own_view(self, values: Mapping[str, Any]) -> View:
        return self._interpolation(values)[0]

    def _check_values(self, values: Mapping[str, Any]) -> None:
        super()._check_values(values)
        if values.get(DECAY) is not None and not self._is_composed:
            raise ValueError(
                f"ScheduleFree around {shortened(type(self.inner).__name__)} decays at y, where the gradient is: "
                f"{DECAY} cannot be had. {received(DECAY, values[DECAY])} Leave it out."
            )
        word = self._interpolation(values)[1]
        name, beta = ("betas[0]", values[word][0]) if word == "betas" else (word, values[word])
        check_values({name: beta}, {name: (None, between)})
        if values.get("nesterov") and not self._is_composed:
            raise ValueError(
                "ScheduleFree interpolates by the momentum of GradientDescentMomentum, and has no Nesterov's form. "
                "Received: nesterov=True. Leave it out."
            )

    def _interpolation(self, values: Mapping[str, Any]) -> tuple[View, str]:
        """What weights are at evaluation, and the number by which they interpolate in training."""
        written = _WRITTEN.get(self.inner.select_rule(values))
        return _BY_MOMENTUM if written is None else written[1:]
