"""SOAP by hand: algorithm 3 of Vyas et al. 2024, with the first step of the authors' program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from reference import Array, Reference


def as_matrix(x: Array) -> Array:
    """A tensor as one matrix, the first dimension by all others; a vector is a column without sides."""
    return x.reshape(len(x), -1) if x.ndim > 1 else x.reshape(-1, 1)


def sides_of(x: Array, max_size: int) -> list[int]:
    """0 for rows and 1 for columns, where there are not more of them."""
    return [axis for axis in (0, 1) if x.ndim > 1 and x.size and as_matrix(x).shape[axis] <= max_size]


def squared(g: Array, axis: int) -> Array:
    """A number for each pair of rows or of columns."""
    return g @ g.T if axis == 0 else g.T @ g


@dataclass(kw_only=True)
class SOAP(Reference):
    """Adam of Uᵀ·g·V, with m kept as it is: θ ← (θ − α·U(UᵀmV/(√v+ε))Vᵀ·√(1−β₂ⁿ)/(1−β₁ⁿ))·(1 − αλ), n = t − 1.

    L ← σL + (1−σ)ggᵀ and R ← σR + (1−σ)gᵀg after the step; U and V are the eigenvectors of L and R at t = 1, where
    nothing is stepped, and then the Q of QR of L·U every k steps. A `floor` decides which null vectors there are at
    first, and holds null directions where they are.
    """

    # Without a floor rounding chooses null vectors, which all but squares have at first: 2e-2 after twenty steps.
    cases: ClassVar = {"soap": {"floor": 0.05, "epsilon": 0.25, "frequency": 3}}
    tuned: ClassVar = {
        "soap, tuned": {
            "learning_rate": 0.02, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.25, "wdecay": 0.3, "shampoo_beta": 0.8,
            "frequency": 2, "floor": 0.1, "max_size": 6,
        },
        "soap, of heavyball": {
            "learning_rate": 0.02, "epsilon": 0.5, "wdecay": 0.3, "frequency": 2, "floor": 0.1, "heavyball": True,
        },
        "soap, biased": {"learning_rate": 0.05, "epsilon": 0.5, "frequency": 2, "floor": 0.1, "correct_bias": False},
    }  # fmt: skip
    never_negative = frozenset({"exp_avg_sq"})
    float32_ulp = 14.0  # 13.5: of heavyball
    float64_bound = 4e-13  # 3.8e-13: exp_avg_sq, by bases whose eigenvalues are near each other
    float32_states = False  # exp_avg_sq is that of other bases where two quotients change their order
    states = 4
    decoupled_decay = True
    learning_rate: float = 3e-3
    beta_1: float = 0.95
    beta_2: float = 0.95
    epsilon: float = 1e-8
    wdecay: float = 0.01
    shampoo_beta: float = 0.95
    frequency: int = 10
    max_size: int = 10000
    floor: float = 1e-8
    correct_bias: bool = True
    heavyball: bool = False
    bases: dict[int, dict[int, Array]] = field(default_factory=dict)  # by a tensor's list of states, and by side

    def first_states(self, w: Array) -> list[Array]:
        """exp_avg, exp_avg_sq, and left and right where there are these; of bases signs are LAPACK's own affair."""
        shape = as_matrix(w).shape
        averages = [np.zeros((shape[axis], shape[axis])) for axis in sides_of(w, self.max_size)]
        return [np.zeros_like(w), np.zeros_like(w), *averages]

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        bases = self.bases.setdefault(id(s), {})
        if t > 1:
            w = self.stepped(w, g, s, bases, t - 1)
        sigma = 1 - (1 - self.shampoo_beta) / (1 - self.shampoo_beta**t) if self.heavyball else self.shampoo_beta
        for at, axis in enumerate(sides_of(w, self.max_size), 2):
            s[at] = sigma * s[at] + (1 - sigma) * squared(as_matrix(g), axis)
            if t == 1:
                bases[axis] = eigenvectors(s[at], self.floor)
            elif (t if self.heavyball else t - 1) % self.frequency == 0:
                bases[axis] = refined(s[at], bases[axis], self.floor)
        return w

    def stepped(self, w: Array, g: Array, s: list[Array], bases: dict[int, Array], n: int) -> Array:
        """The weight after Adam's step in the bases."""
        s[0] = self.beta_1 * s[0] + (1 - self.beta_1) * g
        s[1] = self.beta_2 * s[1] + (1 - self.beta_2) * rotated(as_matrix(g), bases).reshape(g.shape) ** 2
        unbiased = (1 - self.beta_1**n, 1 - self.beta_2**n) if self.correct_bias else (1.0, 1.0)
        turned, root = rotated(as_matrix(s[0]), bases) / unbiased[0], np.sqrt(as_matrix(s[1]) / unbiased[1])
        if self.heavyball:
            delta = restored(turned / np.maximum(root, self.epsilon), bases).reshape(w.shape)
            return w - self.learning_rate * (delta + self.wdecay * w)
        delta = restored(turned / (root + self.epsilon / np.sqrt(unbiased[1])), bases).reshape(w.shape)
        return (w - self.learning_rate * delta) * (1 - self.learning_rate * self.wdecay)


def rotated(x: Array, bases: dict[int, Array]) -> Array:
    """UᵀxV, where there are U and V."""
    x = bases[0].T @ x if 0 in bases else x
    return x @ bases[1] if 1 in bases else x


def restored(x: Array, bases: dict[int, Array]) -> Array:
    """UxVᵀ, where there are U and V."""
    x = bases[0] @ x if 0 in bases else x
    return x @ bases[1].T if 1 in bases else x


def eigenvectors(m: Array, floor: float) -> Array:
    """The largest eigenvalue's first; with a floor null vectors are those of diag(2 … 1) in their space."""
    values, vectors = np.linalg.eigh(m + 1e-30 * np.eye(len(m)))
    null = vectors[:, values <= len(m) * np.finfo(m.dtype).eps * values.max(initial=0.0)]
    if floor > 0 and null.size:
        within = np.linalg.eigh(null.T @ np.diag(np.linspace(2.0, 1.0, len(m))) @ null)[1]
        vectors[:, : null.shape[1]] = null @ within
    return vectors[:, ::-1]


def refined(m: Array, basis: Array, floor: float) -> Array:
    """Each column keeps its place; that of the largest Rayleigh quotient is the first that QR makes orthogonal."""
    quotients, product = np.diag(basis.T @ m @ basis), m @ basis
    if floor > 0:
        product = product + floor * np.abs(quotients).max() * basis
    order = np.argsort(-quotients, kind="stable")
    found = np.empty_like(basis)
    found[:, order] = np.linalg.qr(product[:, order])[0]
    return found
