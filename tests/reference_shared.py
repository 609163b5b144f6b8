"""Rules whose tensors share numbers, again by hand: as `reference`, which has what all rules share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from reference import Array, Hyper, Reference


@dataclass(kw_only=True)
class Prodigy(Reference):
    """Adam on d·g, where all tensors share d and each line is over all of them; with η = αd·(bias correction):

    r ← β₃r + (d/d₀)·η·Σ⟨g, θ₀ − θ⟩, m ← β₁m + (1−β₁)d·g, v ← β₂v + (1−β₂)d²g², s ← β₃s + (d/d₀)·η·g;
    d ← max of d and c·r/Σ‖s‖₁ ever since, at most growth_rate·d; then θ ← θ − λη·θ − η·m / (√v + d·ε).

    Without a gradient other than 0 in a group with a rate, k, d and r stay. Two things are the package's, not the
    paper's: a tensor of a group with rate 0 adds nothing and keeps its moments, but is stepped by the same η; and
    without β₁ the step takes the gradient times the new d.
    """

    # at d₀ = 1e-6 a float32 weight moves by a few ulp at first, and d, which rests on that, is right to a few digits
    cases: ClassVar = {"prodigy": {"d0": 0.01}}
    tuned: ClassVar = {
        "prodigy, tuned": {
            "learning_rate": 0.5, "beta_1": 0.6, "beta_2": 0.9, "beta_3": 0.7, "epsilon": 0.01, "d0": 0.01,
            "d_coef": 2.0, "growth_rate": 1.5, "use_bias_correction": True, "safeguard_warmup": True, "wdecay": 0.3,
        },
        "prodigy, coupled": {"decouple": False, "wdecay": 0.1, "d0": 0.1},
    }  # fmt: skip
    never_negative = frozenset({"exp_avg_sq"})
    float32_ulp = 6.7  # 6.21: clip by norm
    states = 4
    decoupled_decay = True  # coupled too is the rule's own affair here
    beta_1: float = 0.9
    beta_2: float = 0.999
    beta_3: float | None = None  # None: √β₂
    epsilon: float = 1e-8
    decouple: bool = True
    use_bias_correction: bool = False
    safeguard_warmup: bool = False
    d0: float = 1e-6
    d_coef: float = 1.0
    growth_rate: float = float("inf")
    others: dict[int, Hyper] = field(default_factory=dict)  # by tensor: a rate of 0 and a decay of its group's own
    k: int = 0
    d_numerator: float = 0.0

    def __post_init__(self) -> None:
        self.d = self.d_max = self.d0

    def first_states(self, w: Array) -> list[Array]:
        """exp_avg, exp_avg_sq, s, p0."""
        return [*(np.zeros_like(w) for _ in range(3)), w.copy()]

    def number(self, i: int, name: str) -> float:
        return float(self.others.get(i, {}).get(name, getattr(self, name)))

    def rate(self) -> float:
        """η: the rate of a step, with the d that the step before left."""
        corrected = 1.0
        if self.use_bias_correction:
            corrected = np.sqrt(1 - self.beta_2 ** (self.k + 1)) / (1 - self.beta_1 ** (self.k + 1))
        return self.d * self.learning_rate * corrected

    def update_all(self, params: list[Array], grads: dict[int, Array], epoch: int) -> dict[int, Array]:
        rate, before = self.rate(), self.d
        if not self.decouple:
            grads = {i: g + self.number(i, "wdecay") * params[i] for i, g in grads.items()}
        moving = {i: g for i, g in grads.items() if self.number(i, "learning_rate") > 0}
        gain, total = 0.0, 0.0
        for i, g in moving.items():
            gained, size = self.gather(params[i], g, self.state[i], rate)
            gain, total = gain + gained, total + size
        if total == 0:
            return {}
        self.estimate(gain, total)
        self.k += 1
        return {i: self.moved(i, params[i], g, rate, before) for i, g in grads.items()}

    def gather(self, w: Array, g: Array, s: list[Array], rate: float) -> tuple[float, float]:
        """Replace exp_avg, exp_avg_sq and s; what the tensor adds to the numerator, and to the denominator, of d."""
        d, beta_3, scale = self.d, self.mean_of_s(), self.d / self.d0
        gain = scale * rate * float(np.sum(g * (s[3] - w)))
        s[0] = self.beta_1 * s[0] + (1 - self.beta_1) * d * g
        s[1] = self.beta_2 * s[1] + (1 - self.beta_2) * d**2 * g**2
        s[2] = beta_3 * s[2] + scale * (d if self.safeguard_warmup else rate) * g
        return gain, float(np.sum(np.abs(s[2])))

    def mean_of_s(self) -> float:
        return float(np.sqrt(self.beta_2)) if self.beta_3 is None else self.beta_3

    def estimate(self, gain: float, total: float) -> None:
        """The new d, where the first that is larger than d₀ is taken whole."""
        self.d_numerator = self.mean_of_s() * self.d_numerator + gain
        seen = self.d_coef * self.d_numerator / total
        d = max(self.d, seen) if self.d == self.d0 else self.d
        self.d_max = max(self.d_max, seen)
        self.d = min(self.d_max, d * self.growth_rate)

    def moved(self, i: int, w: Array, g: Array, rate: float, before: float) -> Array:
        """A new weight: η and the moments have the old d, ε the new one, and so has the gradient where β₁ = 0."""
        mean = self.state[i][0] if self.beta_1 else self.d * g
        shrunk = w - rate * self.number(i, "wdecay") * w if self.decouple else w
        return shrunk - rate * mean / (np.sqrt(self.state[i][1]) + self.d * self.epsilon)


@dataclass(kw_only=True)
class ScheduleFree(Reference):
    """z ← z − α·(u + λy), x ← (1−c)x + cz, y ← β₁x + (1−β₁)z: the gradient and the weight are y, the result is x.

    c is this step's share of all weights so far, (k+1)^r·(largest α)^power; k counts the steps of the group from 0.
    AdamW: u = g / (√v̂ + ε), v̂ = v / (1 − β₂^(k+1)); or any rule that is given steps z, with its own decay there.
    """

    tuned: ClassVar = {
        "schedulefree, tuned": {
            "learning_rate": 0.05, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01, "warmup_steps": 7, "r": 1.0,
            "weight_lr_power": 1.0, "wdecay": 0.3,
        }
    }  # fmt: skip
    never_negative = frozenset({"exp_avg_sq"})
    decoupled_decay = True
    learning_rate: float = 0.0025
    beta_1: float = 0.9  # the wrapper's momentum
    beta_2: float = 0.999
    epsilon: float = 1e-8
    warmup_steps: int = 0
    r: float = 0.0
    weight_lr_power: float = 2.0
    base: Reference | None = None
    k: int = 0
    lr_max: float = -1.0
    weight_sum: float = 0.0

    def keeps(self) -> int:
        return 2 if self.base is None else 1 + self.base.keeps()

    def first_states(self, w: Array) -> list[Array]:
        """z, then exp_avg_sq or what the rule keeps."""
        return [w.copy(), *([np.zeros_like(w)] if self.base is None else self.base.first_states(w))]

    def average(self, i: int, y: Array) -> Array:
        """x: the weights to evaluate with."""
        return (y - (1 - self.beta_1) * self.state[i][0]) / self.beta_1 if i in self.state else y

    def update_all(self, params: list[Array], grads: dict[int, Array], epoch: int) -> dict[int, Array]:
        rate = self.learning_rate * min(1.0, (self.k + 1) / max(1, self.warmup_steps))
        self.lr_max = max(rate, self.lr_max)
        weight = (self.k + 1) ** self.r * self.lr_max**self.weight_lr_power
        self.weight_sum += weight
        share = weight / self.weight_sum if self.weight_sum else 0.0
        self.k += 1
        made = {}
        for i, g in grads.items():
            y, x, s = params[i], self.average(i, params[i]), self.state[i]
            s[0] = self.stepped(s, g, rate, self.updates[i], epoch) - rate * self.wdecay * y
            x = (1 - share) * x + share * s[0]
            made[i] = self.beta_1 * x + (1 - self.beta_1) * s[0]
        return made

    def stepped(self, s: list[Array], g: Array, rate: float, t: int, epoch: int) -> Array:
        """z after the rule's step."""
        if self.base is None:
            s[1] = self.beta_2 * s[1] + (1 - self.beta_2) * g**2
            return s[0] - rate * g / (np.sqrt(s[1] / (1 - self.beta_2**self.k)) + self.epsilon)
        self.base.learning_rate = rate
        kept = s[1:]
        z = self.base.update(s[0], g if self.base.decoupled_decay else g + self.base.wdecay * s[0], kept, t, epoch)
        s[1:] = kept
        return z
