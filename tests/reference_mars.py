"""MARS by hand, as `reference` has the other rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from reference import Adam, Array


@dataclass(kw_only=True)
class MARS(Adam):
    """c = g + γ·β₁/(1−β₁)·(g − g₋), c ← c / max(1, ‖c‖), then Adam's direction of c, or the sign of its mean.

    g₋ of the first step is g, or 0; θ ← θ − α(u + λθ). A vector, unless `optimize_1d`, has c = g, and Adam's direction.
    """

    tuned: ClassVar = {
        "mars, tuned": {
            "learning_rate": 0.02, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01, "gamma": 0.5, "wdecay": 0.3,
            "first_difference": True,
        },
        "mars, lion": {"learning_rate": 0.02, "gamma": 0.1, "wdecay": 0.2, "mars_type": "lion"},
        "mars, all": {"learning_rate": 0.02, "gamma": 0.1, "optimize_1d": True},
    }  # fmt: skip
    float32_ulp = 3.9  # 3.82: tuned
    states = 3
    decoupled_decay = True
    learning_rate: float = 3e-3
    beta_1: float = 0.95
    beta_2: float = 0.99
    gamma: float = 0.025
    mars_type: str = "adamw"
    optimize_1d: bool = False
    first_difference: bool = False

    def reduced(self, w: Array) -> bool:
        return self.optimize_1d or w.ndim >= 2

    def first_states(self, w: Array) -> list[Array]:
        """exp_avg; exp_avg_sq, but of signs; last_grad, but where c is g."""
        count = 2 if not self.reduced(w) or self.mars_type == "lion" else 3
        return [np.zeros_like(w) for _ in range(count)]

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        c = g
        if self.reduced(w):
            before = g if t == 1 and not self.first_difference else s[-1]
            c = g + self.gamma * self.beta_1 / (1 - self.beta_1) * (g - before)
            c = c / max(1.0, float(np.sqrt(np.sum(c**2))))
            s[-1] = g
        if self.reduced(w) and self.mars_type == "lion":
            s[0] = self.beta_1 * s[0] + (1 - self.beta_1) * c
            u = np.sign(s[0])
        else:
            u = self.direction(c, s, t)
        return w - self.learning_rate * (u + self.wdecay * w)
