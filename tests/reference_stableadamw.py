"""StableAdamW by hand, as `reference` has the other rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from reference import Array, Reference


@dataclass(kw_only=True)
class StableAdamW(Reference):
    """β̂ = β(1−βᵗ⁻¹)/(1−βᵗ) for both, v ← β̂₁v + (1−β̂₁)g, u ← β̂₂u + (1−β̂₂)g², RMS = √mean(g²/max(u, ε²)),

    η = α / max(1, RMS/d), θ ← θ − ηλθ − η·v / (√u + ε); by the authors' code −αλθ.
    """

    tuned: ClassVar = {
        "stableadamw, tuned": {
            "learning_rate": 0.02, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01, "d": 0.7, "wdecay": 0.3
        },
        "stableadamw, coupled": {"learning_rate": 0.02, "wdecay": 0.3, "decouple": False},
        "stableadamw, whole decay": {"learning_rate": 0.02, "wdecay": 0.3, "d": 0.5, "clip_decay": False},
    }  # fmt: skip
    never_negative = frozenset({"exp_avg_sq"})
    float32_ulp = 7.7  # 7.60: clip by norm
    states = 2
    decoupled_decay = True  # coupled too is the rule's own affair here
    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.99
    epsilon: float = 1e-6
    d: float = 1.0
    wdecay: float = 0.01
    decouple: bool = True
    clip_decay: bool = True

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        if not self.decouple:
            g = g + self.wdecay * w
        first, second = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in (self.beta_1, self.beta_2))
        s[0] = first * s[0] + (1 - first) * g
        s[1] = second * s[1] + (1 - second) * g**2
        size = np.sqrt(np.mean(g**2 / np.maximum(s[1], self.epsilon**2))) if g.size else 0.0
        rate = self.learning_rate / max(1.0, size / self.d)
        decay = (rate if self.clip_decay else self.learning_rate) * self.wdecay * w if self.decouple else 0.0
        return w - decay - rate * s[0] / (np.sqrt(s[1]) + self.epsilon)
