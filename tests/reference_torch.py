"""Rules that torch.optim has and few others, again by hand: as `reference`, which has what all rules share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from reference import Array, Reference


@dataclass(kw_only=True)
class NAdam(Reference):
    """m and v as in Adam; μᵢ = β₁(1 − 0.96^(ψi)/2), π = μ₁·…·μₜ;

    θ ← θ − α·((1 − μₜ)·g/(1 − π) + μₜ₊₁·m/(1 − π·μₜ₊₁)) / (√(v/(1 − β₂ᵗ)) + ε).
    """

    tuned: ClassVar = {
        "nadam, tuned": {"learning_rate": 0.03, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01, "momentum_decay": 1.0}
    }
    never_negative = frozenset({"exp_avg_sq"})
    float32_ulp = 4.3  # 4.13: all options
    states = 3
    learning_rate: float = 2e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    momentum_decay: float = 4e-3

    def first_states(self, w: Array) -> list[Array]:
        return [np.zeros_like(w), np.zeros_like(w), np.ones(())]

    def mu(self, t: int) -> float:
        return self.beta_1 * (1 - 0.96 ** (self.momentum_decay * t) / 2)

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        s[0] = self.beta_1 * s[0] + (1 - self.beta_1) * g
        s[1] = self.beta_2 * s[1] + (1 - self.beta_2) * g**2
        s[2] = np.asarray(s[2] * self.mu(t))
        ahead = (1 - self.mu(t)) * g / (1 - s[2]) + self.mu(t + 1) * s[0] / (1 - s[2] * self.mu(t + 1))
        return w - self.learning_rate * ahead / (np.sqrt(s[1] / (1 - self.beta_2**t)) + self.epsilon)


@dataclass(kw_only=True)
class RAdam(Reference):
    """m and v as in Adam; ρ∞ = 2/(1 − β₂) − 1, ρ = ρ∞ − 2tβ₂ᵗ/(1 − β₂ᵗ). Where ρ > 5, with

    r² = (ρ − 4)(ρ − 2)ρ∞ / ((ρ∞ − 4)(ρ∞ − 2)ρ): θ ← θ − α·m̂·r·√(1 − β₂ᵗ)/(√v + ε); else θ ← θ − α·m̂.
    """

    tuned: ClassVar = {"radam, tuned": {"learning_rate": 0.03, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01}}
    never_negative = frozenset({"exp_avg_sq"})
    float32_ulp = 4.2  # 4.00: weight decay
    states = 2
    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        s[0] = self.beta_1 * s[0] + (1 - self.beta_1) * g
        s[1] = self.beta_2 * s[1] + (1 - self.beta_2) * g**2
        mean, left = s[0] / (1 - self.beta_1**t), 1 - self.beta_2**t
        most = 2 / (1 - self.beta_2) - 1
        rho = most - 2 * t * self.beta_2**t / left
        if rho <= 5:
            return w - self.learning_rate * mean
        r = np.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
        return w - self.learning_rate * mean * r * np.sqrt(left) / (np.sqrt(s[1]) + self.epsilon)


@dataclass(kw_only=True)
class AdaMax(Reference):
    """m as in Adam, u ← max(β₂u, |g| + ε), θ ← θ − α/(1 − β₁ᵗ)·m/u."""

    tuned: ClassVar = {"adamax, tuned": {"learning_rate": 0.03, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01}}
    never_negative = frozenset({"exp_inf"})
    float32_ulp = 4.1  # 3.91: all options
    states = 2
    learning_rate: float = 2e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        s[0] = self.beta_1 * s[0] + (1 - self.beta_1) * g
        s[1] = np.maximum(self.beta_2 * s[1], np.abs(g) + self.epsilon)
        return w - self.learning_rate / (1 - self.beta_1**t) * s[0] / s[1]


@dataclass(kw_only=True)
class ASGD(Reference):
    """θ ← (1 − λη)θ − ηg, ā ← ā + μ(θ − ā), by the η and μ that the step before left: α and 1 at first.

    Then η = α/(1 + λαt)^p and μ = 1/max(1, t − t₀).
    """

    cases: ClassVar = {"asgd": {"t0": 5.0}}
    tuned: ClassVar = {"asgd, tuned": {"learning_rate": 0.1, "lambd": 0.05, "power": 0.5, "t0": 0.0}}
    float32_ulp = 2.9  # 2.72: clip by value
    states = 3
    learning_rate: float = 0.01
    lambd: float = 1e-4
    power: float = 0.75
    t0: float = 1e6

    def first_states(self, w: Array) -> list[Array]:
        """eta, mu, ax."""
        return [np.asarray(self.learning_rate), np.ones(()), w.copy()]

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        w = w * (1 - self.lambd * s[0]) - s[0] * g
        s[2] = s[2] + s[1] * (w - s[2])
        s[0] = np.asarray(self.learning_rate / (1 + self.lambd * self.learning_rate * t) ** self.power)
        s[1] = np.asarray(1 / max(1.0, t - self.t0))
        return w


@dataclass(kw_only=True)
class Rprop(Reference):
    """δ, of each element, grows by η⁺ where g has the sign of before and shrinks by η⁻ where it has the other.

    Where it shrank g counts as 0, for the step θ ← θ − sign(g)δ, and for the comparison of the next step.
    """

    tuned: ClassVar = {"rprop, tuned": {"learning_rate": 0.03, "shrink": 0.6, "grow": 1.5, "least": 0.01, "most": 0.06}}
    never_negative = frozenset({"step_size"})
    float32_ulp = 4.6  # 4.45: weight decay
    states = 2
    learning_rate: float = 0.01
    shrink: float = 0.5
    grow: float = 1.2
    least: float = 1e-6
    most: float = 50.0

    def first_states(self, w: Array) -> list[Array]:
        """The gradient of before, and δ."""
        return [np.zeros_like(w), np.full_like(w, self.learning_rate)]

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        same, turned = g * s[0] > 0, g * s[0] < 0
        factor = np.ones_like(w)
        factor[same], factor[turned] = self.grow, self.shrink
        s[1] = np.clip(s[1] * factor, self.least, self.most)
        s[0] = np.where(turned, 0.0, g)
        return w - np.sign(s[0]) * s[1]
