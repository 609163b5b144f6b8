"""Transforms around any rule, by hand: the rule within is a reference, which has no options of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from reference import REFERENCES, Array, Reference


@dataclass(kw_only=True)
class Around(Reference):
    """A rule around `inner`; numbers of both stand side by side, and the decay of AdamW is beside the rule's step."""

    inner: ClassVar[str] = "AdamW"
    never_negative = frozenset({"exp_avg_sq"})
    decoupled_decay = True
    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    wdecay: float = 0.01
    base: Reference | None = None

    def __post_init__(self) -> None:
        if self.base is None:
            numbers: dict[str, Any] = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
            self.base = REFERENCES[self.inner](**numbers)

    def keeps(self) -> int:
        assert self.base is not None
        return self.base.keeps()

    def first_states(self, w: Array) -> list[Array]:
        assert self.base is not None
        return self.base.first_states(w)

    def stepped(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        """What the rule within makes of the weight without a decay; its states are replaced."""
        assert self.base is not None
        self.base.learning_rate, self.base.wdecay = self.learning_rate, 0.0
        return self.base.update(w, g, s, t, epoch)

    def decay(self, w: Array) -> Array:
        return self.learning_rate * self.wdecay * w


@dataclass(kw_only=True)
class Cautious(Around):
    """u = θ − (the rule's step); θ ← θ − αλθ − u·mask / max(mean of mask, 1/1000), mask = 1 where u·g > 0."""

    tuned: ClassVar = {
        "cautious, tuned": {"learning_rate": 0.05, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01, "wdecay": 0.3}
    }

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        u = w - self.stepped(w, g, s, t, epoch)
        mask = (np.sign(u) * np.sign(g) > 0).astype(np.float64)
        share = max(float(np.sum(mask)) / max(mask.size, 1), 1e-3)
        return w - self.decay(w) - u * mask / share


@dataclass(kw_only=True)
class Lookahead(Around):
    """Every k steps φ ← φ + α(θ − φ), θ ← φ; the first φ is θ."""

    tuned: ClassVar = {
        "lookahead, tuned": {
            "learning_rate": 0.05, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01, "wdecay": 0.3, "k": 3, "alpha": 0.8,
        }
    }  # fmt: skip
    k: int = 5
    alpha: float = 0.5

    def keeps(self) -> int:
        return 1 + super().keeps()

    def first_states(self, w: Array) -> list[Array]:
        return [w.copy(), *super().first_states(w)]

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        kept = s[1:]
        new = self.stepped(w, g, kept, t, epoch) - self.decay(w)
        s[1:] = kept
        if t % self.k == 0:
            s[0] = s[0] + self.alpha * (new - s[0])
            new = s[0].copy()
        return new


@dataclass(kw_only=True)
class Centralized(Around):
    """g ← g − (its mean over all dimensions but the first), of two dimensions and more; then the rule's step."""

    shared = False  # of a gradient that is one number rounding alone is left

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        if g.ndim > 1:
            g = g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True)
        return self.stepped(w, g, s, t, epoch) - self.decay(w)


@dataclass(kw_only=True)
class DecayedAdamW(Around):
    """AdamW with another decay than αλθ: by α/α_max, by α²/α_max, or αλθ where the step leads towards 0.

    The largest rate α_max is the first.
    """

    shared = False
    decay_form: str = "relative"
    first: float | None = None

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        assert self.first is not None
        new, rate = self.stepped(w, g, s, t, epoch), self.learning_rate
        if self.decay_form == "cautious":
            return new - rate * self.wdecay * w * (np.sign(new - w) * np.sign(w) <= 0)
        return new - rate / self.first * (rate if self.decay_form == "corrected" else 1.0) * self.wdecay * w
