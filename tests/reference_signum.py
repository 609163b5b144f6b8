"""Signum by hand, as `reference` has the other rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from reference import Array, Reference


@dataclass(kw_only=True)
class Signum(Reference):
    """m ← βm + (1−β)g, θ ← θ − α(sign(m) + λθ); with β = 0 m is g, and is not kept. Coupled, g has λθ and θ has not."""

    cases: ClassVar = {"signum": {}, "sign descent": {"momentum_coef": 0.0}}
    tuned: ClassVar = {
        "signum, tuned": {"learning_rate": 0.02, "momentum_coef": 0.6, "wdecay": 0.2},
        "signum, coupled": {"learning_rate": 0.02, "momentum_coef": 0.6, "wdecay": 0.2, "decouple": False},
        "sign descent, coupled": {"learning_rate": 0.017, "momentum_coef": 0.0, "wdecay": 0.2, "decouple": False},
    }
    float32_ulp = 7.7  # 7.60: weight decay
    decoupled_decay = True  # coupled too is the rule's own affair here
    learning_rate: float = 1e-4
    momentum_coef: float = 0.9
    decouple: bool = True

    def keeps(self) -> int:
        return 0 if self.momentum_coef == 0 else 1

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        if not self.decouple:
            g = g + self.wdecay * w
        m = self.momentum_coef * (s[0] if s else 0.0) + (1 - self.momentum_coef) * g
        s[:] = [m] if s else []
        return w - self.learning_rate * (np.sign(m) + (self.wdecay * w if self.decouple else 0.0))
