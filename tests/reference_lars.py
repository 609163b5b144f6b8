"""LARS by hand: algorithm 1 of You, Gitman & Ginsburg 2017, with the rate outside of the momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from reference import Array, Reference


@dataclass(kw_only=True)
class LARS(Reference):
    """d = η‖θ‖/(‖g‖ + λ‖θ‖ + ε)·(g + λθ), the ratio 1 where a norm is 0; m ← μm + (1−τ)d, θ ← θ − αm."""

    cases: ClassVar = {"lars": {}, "lars_without_momentum": {"momentum_coef": 0.0, "learning_rate": 3.0}}
    tuned: ClassVar = {
        "lars, tuned": {
            "learning_rate": 0.3, "momentum_coef": 0.6, "wdecay": 0.3, "trust_coefficient": 0.02, "epsilon": 0.5,
            "dampening": 0.25, "trust_clip": True,
        },
        "lars, of matrices": {
            "learning_rate": 0.05, "nesterov": True, "always_adapt": False, "adapt_vectors": False,
            "trust_coefficient": 0.1,
        },
    }  # fmt: skip
    float32_ulp = 3.4  # 3.18: without momentum, clip by value
    decoupled_decay = True
    learning_rate: float = 1.0
    momentum_coef: float = 0.9
    trust_coefficient: float = 0.001
    epsilon: float = 1e-8
    dampening: float = 0.0
    nesterov: bool = False
    trust_clip: bool = False
    always_adapt: bool = True
    adapt_vectors: bool = True

    def keeps(self) -> int:
        return 0 if self.momentum_coef == 0 else 1

    def ratio(self, w: Array, g: Array) -> float:
        if self.wdecay == 0 and not self.always_adapt:
            return 1.0
        sizes = np.sqrt(np.sum(w**2)), np.sqrt(np.sum(g**2))
        found = self.trust_coefficient * sizes[0] / (sizes[1] + self.wdecay * sizes[0] + self.epsilon)
        found = found if min(sizes) > 0 else 1.0
        return min(found / self.learning_rate, 1.0) if self.trust_clip else found

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        d = self.ratio(w, g) * (g + self.wdecay * w) if self.adapt_vectors or w.ndim > 1 else g
        if not s:
            return w - self.learning_rate * d
        s[0] = self.momentum_coef * s[0] + (1.0 if t == 1 else 1 - self.dampening) * d
        return w - self.learning_rate * (d + self.momentum_coef * s[0] if self.nesterov else s[0])
