"""ADOPT by hand: algorithm 2 of Taniguchi et al. 2024, whose v₀ is the first gradient's square."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from reference import Array, Reference

NO_BOUND: Any = None


@dataclass(kw_only=True)
class ADOPT(Reference):
    """m ← β₁m + (1−β₁)·clip(g/max(√v, ε), ±(t−1)^p), θ ← θ − αm, v ← β₂v + (1−β₂)g²; at first v ← g² alone."""

    tuned: ClassVar = {
        "adopt, tuned": {
            "learning_rate": 0.02, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.2, "clip_exponent": 0.1, "wdecay": 0.3
        },
        "adopt, decoupled": {
            "learning_rate": 0.02, "beta_2": 0.8, "epsilon": 0.1, "clip_exponent": NO_BOUND, "wdecay": 0.3,
            "decouple": True,
        },
    }  # fmt: skip
    never_negative = frozenset({"exp_avg_sq"})
    float32_ulp = 5.0  # 4.75: both clips
    states = 2
    decoupled_decay = True
    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.9999
    epsilon: float = 1e-6
    clip_exponent: float | None = 0.25
    decouple: bool = False

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        if not self.decouple:
            g = g + self.wdecay * w
        if t == 1:
            s[1] = g**2
            return w
        if self.decouple:
            w = w - self.learning_rate * self.wdecay * w
        u = g / np.maximum(np.sqrt(s[1]), self.epsilon)
        if self.clip_exponent is not None:
            bound = (t - 1) ** self.clip_exponent
            u = np.clip(u, -bound, bound)
        s[0] = self.beta_1 * s[0] + (1 - self.beta_1) * u
        s[1] = self.beta_2 * s[1] + (1 - self.beta_2) * g**2
        return w - self.learning_rate * s[0]
