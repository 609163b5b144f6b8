"""Adan by hand: algorithm 1 of Xie et al. 2022, with Adam's corrections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from reference import Array, Reference


@dataclass(kw_only=True)
class Adan(Reference):
    """m, v, n: means of g, of g − g₋₁ and of (g + β₂(g − g₋₁))²; θ ← (θ − α(m̂ + β₂v̂) / (√n̂ + ε)) / (1 + αλ)."""

    tuned: ClassVar = {
        "adan, tuned": {
            "learning_rate": 0.02, "beta_1": 0.6, "beta_2": 0.7, "beta_3": 0.9, "epsilon": 0.01, "wdecay": 0.3
        },
        "adan, no prox": {"learning_rate": 0.02, "beta_2": 0.5, "epsilon": 0.1, "wdecay": 0.3, "no_prox": True},
    }  # fmt: skip
    never_negative = frozenset({"exp_avg_sq"})
    float32_ulp = 3.2  # 3.05: both clips
    states = 4
    decoupled_decay = True
    learning_rate: float = 1e-3
    beta_1: float = 0.98
    beta_2: float = 0.92
    beta_3: float = 0.99
    epsilon: float = 1e-8
    no_prox: bool = False

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        change = g - -s[3] if t > 1 else np.zeros_like(g)
        s[0] = self.beta_1 * s[0] + (1 - self.beta_1) * g
        s[1] = self.beta_2 * s[1] + (1 - self.beta_2) * change
        s[2] = self.beta_3 * s[2] + (1 - self.beta_3) * (g + self.beta_2 * change) ** 2
        s[3] = -g
        n_hat = s[2] / (1 - self.beta_3**t)
        mean = s[0] / (1 - self.beta_1**t) + self.beta_2 * (s[1] / (1 - self.beta_2**t))
        step = self.learning_rate * mean / (np.sqrt(n_hat) + self.epsilon)
        decay = self.learning_rate * self.wdecay
        return (1 - decay) * w - step if self.no_prox else (w - step) / (1 + decay)
