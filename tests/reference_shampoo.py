"""Shampoo by hand: algorithm 1 of Gupta et al. 2018, with grafting as in Anil et al. 2020."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from reference import Array, Reference
from reference_soap import as_matrix, sides_of, squared


@dataclass(kw_only=True)
class Shampoo(Reference):
    """L ← β₂L + (1−β₂)ggᵀ from εI, R likewise; U = L^(−1/4)·g·R^(−1/4); u = ‖d‖/‖U‖·U; m ← β₁m + u; θ ← θ − αλθ − αm.

    d is the step of `graft`, whose length u takes; the roots are new every k steps, and the identity before; up to step
    `start` the step is d's, with a momentum of its own. One side alone has the exponent −1/2; a vector has u = d. With
    `epsilon_of` other than "start" ε is added to eigenvalues at each root: as it stands ("one"), times the largest
    ("largest"), or above the least where that is negative ("least").
    """

    cases: ClassVar[dict[str, Any]] = {
        "shampoo": {"frequency": 3, "start": 5, "epsilon": 0.01, "epsilon_of": "largest"}
    }
    tuned: ClassVar[dict[str, Any]] = {
        "shampoo, tuned": {
            "learning_rate": 0.02, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.1, "graft_epsilon": 0.5, "wdecay": 0.3,
            "frequency": 2, "start": 4, "graft": "rmsprop", "nesterov": True, "max_size": 6,
        },
        "shampoo, sums": {
            "learning_rate": 0.02, "beta_2": 1.0, "epsilon": 0.1, "frequency": 1, "start": 0, "graft": "none",
        },
        "shampoo, adagrad": {"frequency": 2, "start": 3, "epsilon": 0.1, "graft": "adagrad", "graft_epsilon": 0.5},
        "shampoo, sign": {"frequency": 2, "start": 3, "epsilon": 0.1, "graft": "sign"},
    }  # fmt: skip
    float32_ulp = 20.0  # 19.8: sums of rank 1
    states = 5
    decoupled_decay = True
    learning_rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    graft_epsilon: float = 1e-10
    wdecay: float = 0.0
    frequency: int = 1000
    start: int = 25
    graft: str = "sgd"
    epsilon_of: str = "start"
    nesterov: bool = False
    decouple: bool = True
    max_size: int = 8192
    roots: dict[int, dict[int, Array]] = field(default_factory=dict)  # by a tensor's list of states, and by side

    @property
    def never_negative(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return frozenset({"square"} if self.graft in ("adagrad", "rmsprop") else ())

    def first_states(self, w: Array) -> list[Array]:
        """momentum_buffer, graft_buffer, square where it is kept, and left and right without their εI."""
        shape = as_matrix(w).shape
        averages = [np.zeros((shape[axis], shape[axis])) for axis in sides_of(w, self.max_size)]
        elements = 3 if self.graft in ("adagrad", "rmsprop") else 2
        return [*(np.zeros_like(w) for _ in range(elements)), *averages]

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        d, fresh = self.grafted(g, s), self.preconditioned(g, s, t)
        if fresh is None:
            u = d
        elif self.graft == "none":
            u = fresh
        else:
            u = np.sqrt(np.sum(d**2)) / (np.sqrt(np.sum(fresh**2)) + 1e-16) * fresh
        if not self.decouple:
            u, d = u + self.wdecay * w, d + self.wdecay * w
        s[0], s[1] = self.beta_1 * s[0] + u, self.beta_1 * s[1] + d
        taken, latest = (s[0], u) if t >= self.start else (s[1], d)
        step = self.beta_1 * taken + latest if self.nesterov else taken
        return (w - self.learning_rate * self.wdecay * w if self.decouple else w) - self.learning_rate * step

    def grafted(self, g: Array, s: list[Array]) -> Array:
        """The step whose length counts."""
        if self.graft in ("adagrad", "rmsprop"):
            s[2] = s[2] + g**2 if self.graft == "adagrad" else self.beta_2 * s[2] + (1 - self.beta_2) * g**2
            return g / (np.sqrt(s[2]) + self.graft_epsilon)
        return np.sign(g) if self.graft == "sign" else g

    def preconditioned(self, g: Array, s: list[Array], t: int) -> Array | None:
        """L^(−1/2k)·g·R^(−1/2k) of k sides; None where there are none."""
        sides, roots = sides_of(g, self.max_size), self.roots.setdefault(id(s), {})
        fresh = 1.0 if self.beta_2 == 1 else 1 - self.beta_2
        found = as_matrix(g)
        for at, axis in enumerate(sides, len(s) - len(sides)):
            s[at] = self.beta_2 * s[at] + fresh * squared(as_matrix(g), axis)
            if t % self.frequency == 0:
                roots[axis] = self.root(s[at], 2 * len(sides), t)
            if axis in roots:
                found = roots[axis] @ found if axis == 0 else found @ roots[axis]
        return found.reshape(g.shape) if sides else None

    def root(self, m: Array, exponent: int, t: int) -> Array:
        values, vectors = np.linalg.eigh(m)
        if self.epsilon_of == "least":
            values = values - min(values[0], 0.0)
        factor = {"start": self.beta_2**t, "largest": values[-1]}.get(self.epsilon_of, 1.0)
        values = np.maximum(values, 0.0) + self.epsilon * factor
        nothing = 0.0 if values.max(initial=0.0) > 0 else 1.0
        powers = np.array([value ** (-1 / exponent) if value > 0 else nothing for value in values])
        return vectors * powers @ vectors.T
