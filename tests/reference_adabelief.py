"""AdaBelief by hand: algorithm 2 of Zhuang et al. 2020, and the factor of Liu et al. 2020, algorithm 2 (RAdam)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from reference import Array, Reference


@dataclass(kw_only=True)
class AdaBelief(Reference):
    """m ← β₁m + (1−β₁)g, s ← β₂s + (1−β₂)(g − m)² + ε, θ ← θ − αλθ − α·m̂ / (√ŝ + ε)."""

    cases: ClassVar = {"adabelief": {}, "adabelief_rectified": {"rectify": True, "beta_2": 0.9}}
    tuned: ClassVar = {
        "adabelief, tuned": {
            "learning_rate": 0.02, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.1, "epsilon_inside": 0.01, "wdecay": 0.3
        },
        "adabelief, coupled": {
            "learning_rate": 0.02, "beta_2": 0.9, "epsilon": 0.01, "wdecay": 0.3, "decouple": False,
            "rectify": True, "degenerated_to_sgd": False,
        },
    }  # fmt: skip
    never_negative = frozenset({"exp_avg_var"})
    float32_ulp = 4.5  # 4.33: coupled, all options
    states = 2
    decoupled_decay = True
    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-16
    epsilon_inside: float | None = None
    decouple: bool = True
    rectify: bool = False
    degenerated_to_sgd: bool = True

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        if not self.decouple:
            g = g + self.wdecay * w
        inside = self.epsilon if self.epsilon_inside is None else self.epsilon_inside
        s[0] = self.beta_1 * s[0] + (1 - self.beta_1) * g
        s[1] = self.beta_2 * s[1] + (1 - self.beta_2) * (g - s[0]) ** 2 + inside
        m_hat = s[0] / (1 - self.beta_1**t)
        shrunk = w - self.learning_rate * self.wdecay * w if self.decouple else w
        if not self.rectify:
            return shrunk - self.learning_rate * m_hat / (np.sqrt(s[1] / (1 - self.beta_2**t)) + self.epsilon)
        rho_end = 2 / (1 - self.beta_2) - 1
        rho = rho_end - 2 * t * self.beta_2**t / (1 - self.beta_2**t)
        if rho < 5:
            return shrunk - self.learning_rate * m_hat if self.degenerated_to_sgd else shrunk
        r = np.sqrt((rho - 4) * (rho - 2) * rho_end / ((rho_end - 4) * (rho_end - 2) * rho))
        return shrunk - self.learning_rate * r * np.sqrt(1 - self.beta_2**t) * m_hat / (np.sqrt(s[1]) + self.epsilon)
