"""NorMuon by hand: algorithm 1 of Li et al. 2025, and the form of the authors' program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from reference import Array, Reference
from reference_soap import as_matrix

COEFFICIENTS = (3.4445, -4.775, 2.0315)


def newton_schulz(m: Array, steps: int, coefficients: tuple[float, float, float] = COEFFICIENTS) -> Array:
    """X ← aX + (bA + cA²)X with A = XXᵀ, from M/‖M‖; of more rows than columns by the transpose."""
    a, b, c = coefficients
    x = (m if len(m) <= m.shape[1] else m.T) / max(float(np.sqrt(np.sum(m**2))), 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if len(m) <= m.shape[1] else x.T


@dataclass(kw_only=True)
class NorMuon(Reference):
    """M ← μM + (1−μ)G, O = NS(M), v ← β₂v + (1−β₂)·(row means of O²), Ô = O/(√v + ε), θ ← θ − αλθ − α·0.2√(mn)/‖Ô‖·Ô.

    With Nesterov NS is of μM + (1−μ)G. With `match_rms` False √max(1, m/n)·‖O‖ stands for 0.2√(mn). A tensor of more
    than two dimensions is one matrix, of its first dimension by all others; one of fewer is not a matrix.
    """

    matrices = True
    cases: ClassVar = {
        "normuon": {"units": "float32"}, "normuon_of_norm": {"match_rms": False, "units": "float32"},
    }  # fmt: skip
    tuned: ClassVar = {
        "normuon, tuned": {
            "learning_rate": 0.05, "momentum_coef": 0.6, "beta_2": 0.8, "epsilon": 0.01, "wdecay": 0.3, "ns_steps": 3,
            "nesterov": False, "units": "float32",
        }
    }  # fmt: skip
    never_negative = frozenset({"row_sq"})
    float32_ulp = 9.0
    float64_bound = 2e-13  # 1.7e-13: row_sq of rank 1, where the steps of the iteration are steep
    float32_states = False  # 700 ulp of the same; rows of weights go by their ratios
    states = 2
    decoupled_decay = True
    learning_rate: float = 0.02
    momentum_coef: float = 0.95
    beta_2: float = 0.95
    epsilon: float = 1e-10
    wdecay: float = 0.0
    nesterov: bool = True
    ns_steps: int = 5
    match_rms: bool = True
    units: str | None = None  # a way to the same

    def first_states(self, w: Array) -> list[Array]:
        """momentum_buffer and row_sq."""
        return [np.zeros_like(w), np.zeros((len(w), *[1] * (w.ndim - 1)))]

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        s[0] = self.momentum_coef * s[0] + (1 - self.momentum_coef) * g
        if not w.size:
            return w
        m = as_matrix(self.momentum_coef * s[0] + (1 - self.momentum_coef) * g if self.nesterov else s[0])
        o = newton_schulz(m, self.ns_steps)
        s[1] = self.beta_2 * s[1] + (1 - self.beta_2) * np.mean(o**2, axis=1).reshape(s[1].shape)
        u = o / (np.sqrt(as_matrix(s[1])) + self.epsilon)
        rows, columns = m.shape
        kept = np.sqrt(max(1.0, rows / columns)) * np.sqrt(np.sum(o**2))
        length = 0.2 * np.sqrt(m.size) if self.match_rms else kept
        u = length / (np.sqrt(np.sum(u**2)) + self.epsilon) * u
        return w - self.learning_rate * self.wdecay * w - self.learning_rate * u.reshape(w.shape)
