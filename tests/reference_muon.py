"""Muon by hand: Jordan et al. 2024, with the iteration as a polynomial of singular values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from reference import Array, Reference

# A schedule of coefficients: by what M is divided besides its norm, whether it begins anew, and the steps.
SCHEDULES: dict[str, tuple[float, bool, list[tuple[float, float, float]]]] = {
    "quintic": (
        1.0, True,
        [
            (4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
            (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012),
        ],
    ),
    "polar_express_dion": (
        1.02, False,
        [
            (8.156554524902461, -22.48329292557795, 15.878769915207462),
            (4.042929935166739, -2.808917465908714, 0.5000178451051316),
            (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
            (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
            (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
        ],
    ),
}  # fmt: skip


def orthogonalized(m: Array, coefficients: Any, steps: int, epsilon: float, scale: str) -> Array:
    """A matrix whose singular values s are p(s/‖M‖), p a chain of odd polynomials, times a factor by its shape."""
    if isinstance(coefficients, str):
        divisor, cycles, known = SCHEDULES[coefficients]
    else:
        divisor, cycles, known = 1.0, False, [tuple(coefficients[i : i + 3]) for i in range(0, len(coefficients), 3)]
    u, s, vt = np.linalg.svd(m, full_matrices=False)
    s = s / divisor / max(float(np.sqrt(np.sum(m**2))), epsilon)
    for t in range(steps):
        a, b, c = known[t % len(known)] if cycles else known[min(t, len(known) - 1)]
        s = a * s + b * s**3 + c * s**5
    return factor(scale, *m.shape) * (u * s) @ vt


def factor(scale: str, rows: int, columns: int) -> float:
    if scale == "original":
        return max(1.0, rows / columns) ** 0.5
    if scale == "match_rms_adamw":
        return 0.2 * max(rows, columns) ** 0.5
    if scale == "spectral":
        return max(rows, columns) ** 0.5
    return {"spectral_unclamped": (rows / columns) ** 0.5, "none": 1.0}[scale]


@dataclass(kw_only=True)
class Muon(Reference):
    """m ← μm + (1−μ)g, O = s·p(u/max(‖u‖, ε)) with u = m or (1−μ)g + μm, θ ← (1 − αλ)θ − αO.

    A tensor of more than two dimensions is the matrix of the first by all others.
    """

    cases: ClassVar = {
        "muon": {"learning_rate": 0.02, "units": "float32"},
        "muon_of_dion": {
            "learning_rate": 0.002, "nesterov": False, "ns_coefficients": "polar_express_dion", "wdecay": 0.01,
            "scale": "spectral_unclamped", "units": "float32",
        },
    }  # fmt: skip
    tuned: ClassVar = {
        "muon, tuned": {
            "learning_rate": 0.05, "momentum_coef": 0.6, "wdecay": 0.3, "epsilon": 0.5, "ns_steps": 3,
            "ns_coefficients": (3.0, -3.2, 1.2), "scale": "match_rms_adamw", "units": "float32",
        },
        "muon, of NVIDIA": {
            "learning_rate": 0.001, "nesterov": False, "ns_coefficients": "quintic", "ns_steps": 7, "scale": "spectral",
            "units": "float32",
        },
        "muon, by steps": {
            "learning_rate": 0.02, "ns_coefficients": (3.0, -3.2, 1.2, 2.0, -1.5, 0.5), "ns_steps": 4, "scale": "none",
            "momentum_coef": 0.0, "units": "float32",
        },
    }  # fmt: skip
    matrices = True
    float32_ulp = 16.0  # 14.6: clip by norm; the matrices of the table are small, and of 1.25 in aspect and more
    states = 1
    decoupled_decay = True
    learning_rate: float = 1e-3
    wdecay: float = 0.1
    momentum_coef: float = 0.95
    nesterov: bool = True
    ns_coefficients: str | Sequence[float] = (3.4445, -4.775, 2.0315)
    epsilon: float = 1e-7
    ns_steps: int = 5
    scale: str = "original"
    units: str | None = None  # a way to the same

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        s[0] = self.momentum_coef * s[0] + (1 - self.momentum_coef) * g
        u = (1 - self.momentum_coef) * g + self.momentum_coef * s[0] if self.nesterov else s[0]
        if u.size:
            m = u.reshape(len(u), -1)
            u = orthogonalized(m, self.ns_coefficients, self.ns_steps, self.epsilon, self.scale).reshape(u.shape)
        return (1 - self.learning_rate * self.wdecay) * w - self.learning_rate * u
