"""The update rules again, in numpy and float64, written by hand from their published equations.

Nothing here imports neon: a mistake in neon's rules, in its engine or in its options cannot also be
made here. Plain loops, one tensor after another, no fusion. A step goes through the options in one
fixed order: divide by the batch size → norm of the raw gradients over all tensors → scale by it
→ clip by value → weight decay → rule → clip the parameter.

A class here, of the name of a rule, is all that the shared tests ask of that rule: its equation, its cases
under neon's names of numbers, and its largest error after twenty steps in float32, against float64, in ulp
(2⁻²³) of the largest magnitude that a tensor had on the way. It is measured over the whole table, where the
worst is named, and rounded up. Every step may round a weight by half an ulp: ten come from that alone,
where a tensor of one element moves by the same amount each time. A file reference_NAME.py adds its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Hyper = dict[str, Any]


# By name, in the order in which they are written.
REFERENCES: dict[str, type[Reference]] = {}


@dataclass(kw_only=True)
class Reference:
    """What all rules share: the options, the states, and the count of each tensor's updates."""

    states: ClassVar[int] = 0
    cases: ClassVar[dict[str, Hyper]] = {}  # names in the tables; one of none is called as its class
    tuned: ClassVar[dict[str, Hyper]] = {}  # far from the defaults, so that no constant can hide
    never_negative: ClassVar[frozenset[str]] = frozenset()  # states that are kept without a sign
    float32_ulp: ClassVar[float] = 4.0
    float64_bound: ClassVar[float] = 1e-14  # of the same in float64, where 2e-15 was seen: Lion with decay
    float32_states: ClassVar[bool] = True  # whether states are compared in float32
    shared: ClassVar[bool] = True  # whether the shared tests run it, whose gradients may be one number for all elements
    decoupled_decay: ClassVar[bool] = False  # True where the rule itself applies the weight decay
    matrices: ClassVar[bool] = False  # whether it takes tensors of two dimensions and more alone

    learning_rate: float = 1.0
    batch_size: int = 1
    gradient_clip_norm: float | None = None
    gradient_clip_value: float | None = None
    wdecay: float = 0.0
    param_clip_value: float | None = None
    state: dict[int, list[Array]] = field(default_factory=dict)
    updates: dict[int, int] = field(default_factory=dict)

    def __init_subclass__(cls) -> None:
        REFERENCES[cls.__name__] = cls

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        """The rule: return the new weight, replace the states in `s`."""
        raise NotImplementedError

    def update_all(self, params: list[Array], grads: dict[int, Array], epoch: int) -> dict[int, Array]:
        """The new weights by index; where tensors share numbers, a rule has this in the place of `update`."""
        return {i: self.update(params[i], g, self.state[i], self.updates[i], epoch) for i, g in grads.items()}

    def keeps(self) -> int:
        """How many states a tensor has at most."""
        return self.states

    def first_states(self, w: Array) -> list[Array]:
        """A tensor's states before its first update."""
        return [np.zeros_like(w) for _ in range(self.keeps())]

    def step(self, params: list[Array], grads: Sequence[Array | None], epoch: int = 0) -> None:
        """Replace every entry of `params` whose gradient is not None."""
        scaled = {i: g / self.batch_size for i, g in enumerate(grads) if g is not None}
        factor = 1.0
        if self.gradient_clip_norm is not None:
            norm = np.sqrt(sum(float(np.sum(g * g)) for g in scaled.values()))
            if norm > abs(self.gradient_clip_norm):
                factor = abs(self.gradient_clip_norm) / norm
        for i, g in scaled.items():
            g = g * factor
            if self.gradient_clip_value is not None:
                g = np.clip(g, -abs(self.gradient_clip_value), abs(self.gradient_clip_value))
            if not self.decoupled_decay:
                g = g + self.wdecay * params[i]
            if i not in self.state:
                self.state[i] = self.first_states(params[i])
            self.updates[i] = self.updates.get(i, 0) + 1
            scaled[i] = g
        for i, w in self.update_all(params, scaled, epoch).items():
            if self.param_clip_value is not None:
                w = np.clip(w, -abs(self.param_clip_value), abs(self.param_clip_value))
            params[i] = w


@dataclass(kw_only=True)
class GradientDescentMomentum(Reference):
    """v ← γv − α(g + λθ), θ ← θ + v; Nesterov: θ ← θ + γv − α(g + λθ) with the new v."""

    cases: ClassVar = {
        "descent": {"learning_rate": 0.05, "momentum_coef": 0.0},
        "momentum": {"learning_rate": 0.02, "momentum_coef": 0.9},
        "nesterov": {"learning_rate": 0.02, "momentum_coef": 0.9, "nesterov": True},
    }
    tuned: ClassVar = {"momentum, tuned": {"learning_rate": 0.3, "momentum_coef": 0.5}}
    float32_ulp = 4.0  # 3.95: Nesterov with all options
    momentum_coef: float
    nesterov: bool = False

    def keeps(self) -> int:
        return 0 if self.momentum_coef == 0 else 1

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        if not s:
            return w - self.learning_rate * g
        s[0] = self.momentum_coef * s[0] - self.learning_rate * g
        if self.nesterov:
            return w + self.momentum_coef * s[0] - self.learning_rate * g
        return w + s[0]


@dataclass(kw_only=True)
class RMSProp(Reference):
    """μ ← λμ + (1−λ)g², θ ← θ − αg / (√(μ+ε) + ε)."""

    tuned: ClassVar = {"rmsprop, tuned": {"decay_rate": 0.6, "learning_rate": 0.05, "epsilon": 0.01}}
    never_negative = frozenset({"square_avg"})
    float32_ulp = 3.2  # 3.08: batch of 8
    states = 1
    decay_rate: float = 0.95
    learning_rate: float = 2e-3
    epsilon: float = 1e-6

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        s[0] = self.decay_rate * s[0] + (1 - self.decay_rate) * g**2
        return w - self.learning_rate * g / (np.sqrt(s[0] + self.epsilon) + self.epsilon)


@dataclass(kw_only=True)
class Adagrad(Reference):
    """G ← G + g², θ ← θ − αg / √(G+ε)."""

    tuned: ClassVar = {"adagrad, tuned": {"learning_rate": 0.3, "epsilon": 0.1}}
    never_negative = frozenset({"sum"})
    float32_ulp = 3.4  # 3.33: clip by value
    states = 1
    learning_rate: float = 0.01
    epsilon: float = 1e-6

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        s[0] = s[0] + g**2
        return w - self.learning_rate * g / np.sqrt(s[0] + self.epsilon)


@dataclass(kw_only=True)
class Adadelta(Reference):
    """μ_J ← λμ_J + (1−λ)g², Δ = √((μ_θ+ε)/(μ_J+ε))·g, μ_θ ← λμ_θ + (1−λ)Δ², θ ← θ − Δ."""

    tuned: ClassVar = {"adadelta, tuned": {"decay": 0.7, "epsilon": 0.02}}
    never_negative = frozenset({"square_avg", "acc_delta"})
    float32_ulp = 5.0  # 4.97: all options
    states = 2
    decay: float = 0.95
    epsilon: float = 1e-6

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        s[0] = self.decay * s[0] + (1 - self.decay) * g**2
        delta = np.sqrt((s[1] + self.epsilon) / (s[0] + self.epsilon)) * g
        s[1] = self.decay * s[1] + (1 - self.decay) * delta**2
        return w - self.learning_rate * delta


@dataclass(kw_only=True)
class Adam(Reference):
    """m ← β₁m + (1−β₁)g, v ← β₂v + (1−β₂)g², θ ← θ − α·m̂ / (√v̂ + ε), t from 1 per tensor."""

    tuned: ClassVar = {
        "adam, tuned": {"learning_rate": 0.02, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01},
        # a small ε would make this sign(g), and with weight decay no arithmetic knows a sign near zero
        "adam, no memory": {"learning_rate": 0.02, "beta_1": 0.0, "beta_2": 0.0, "epsilon": 0.25},
    }
    never_negative = frozenset({"exp_avg_sq"})
    float32_ulp = 4.3  # 4.23: tuned, all options
    states = 2
    learning_rate: float = 0.001
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def direction(self, g: Array, s: list[Array], t: int) -> Array:
        """Replace both moments and return m̂ / (√v̂ + ε)."""
        s[0] = self.beta_1 * s[0] + (1 - self.beta_1) * g
        s[1] = self.beta_2 * s[1] + (1 - self.beta_2) * g**2
        m_hat = s[0] / (1 - self.beta_1**t)
        v_hat = s[1] / (1 - self.beta_2**t)
        return m_hat / (np.sqrt(v_hat) + self.epsilon)

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        return w - self.learning_rate * self.direction(g, s, t)


@dataclass(kw_only=True)
class AdamW(Adam):
    """Adam, with θ ← θ − αλθ − α·m̂ / (√v̂ + ε)."""

    tuned: ClassVar = {
        "adamw, tuned": {"learning_rate": 0.02, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01, "wdecay": 0.3}
    }
    float32_ulp = 11.5  # 11.497: clip by norm; 1 − αλ is rounded to float32, and w twice a step
    decoupled_decay = True
    wdecay: float = 0.01

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        shrunk = w - self.learning_rate * self.wdecay * w
        return shrunk - self.learning_rate * self.direction(g, s, t)


@dataclass(kw_only=True)
class AdEMAMix(Adam):
    """Adam with (m̂ + αm₃) in the place of m̂, where m₃ ← β₃m₃ + (1−β₃)g, and θ ← θ − ηλθ beside it."""

    tuned: ClassVar = {"ademamix, tuned": {"learning_rate": 0.02, "beta_3": 0.9, "alpha": 8.0, "epsilon": 0.01}}
    float32_ulp = 3.8  # 3.65: clip by norm
    states = 3
    decoupled_decay = True
    beta_3: float = 0.9999
    alpha: float = 5.0

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        s[0] = self.beta_1 * s[0] + (1 - self.beta_1) * g
        s[1] = self.beta_3 * s[1] + (1 - self.beta_3) * g
        s[2] = self.beta_2 * s[2] + (1 - self.beta_2) * g**2
        mean = s[0] / (1 - self.beta_1**t) + self.alpha * s[1]
        return w - self.learning_rate * (mean / (np.sqrt(s[2] / (1 - self.beta_2**t)) + self.epsilon) + self.wdecay * w)


@dataclass(kw_only=True)
class Lion(Reference):
    """u = sign(β₁m + (1−β₁)g), θ ← θ − α(u + λθ), m ← β₂m + (1−β₂)g."""

    tuned: ClassVar = {"lion, tuned": {"learning_rate": 0.02, "beta_1": 0.6, "beta_2": 0.8, "wdecay": 0.2}}
    float32_ulp = 13.2  # 13.13: weight decay, as AdamW
    states = 1
    decoupled_decay = True
    learning_rate: float = 1e-4
    beta_1: float = 0.9
    beta_2: float = 0.99

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        u = np.sign(self.beta_1 * s[0] + (1 - self.beta_1) * g)
        s[0] = self.beta_2 * s[0] + (1 - self.beta_2) * g
        return w - self.learning_rate * (u + self.wdecay * w)


@dataclass(kw_only=True)
class Adafactor(Reference):
    """R, C: means over rows and columns of g², V̂ = RC / max(mean R, ε₁), U = G / max(√V̂, ε₁); a vector keeps V itself.

    θ ← (1 − αλ)θ − max(ε₂, RMS θ)·ρ·U / max(1, RMS(U)/d), with ρ = min(α, 1/√t) and 1 − β₂ = t^decay.
    """

    tuned: ClassVar = {
        "adafactor, tuned": {
            "learning_rate": 0.3, "beta2_decay": -0.5, "epsilon_1": 0.25, "epsilon_2": 0.5, "d": 1.5, "wdecay": 0.2
        }
    }  # fmt: skip
    never_negative = frozenset({"row_var", "col_var", "variance"})
    states = 2
    decoupled_decay = True
    learning_rate: float = 0.01
    beta2_decay: float = -0.8
    epsilon_1: float | None = None  # None: the gap after 1 in the weight's own format
    epsilon_2: float = 1e-3
    d: float = 1.0

    def first_states(self, w: Array) -> list[Array]:
        """row_var and col_var of the last two sides, or variance."""
        return [np.zeros_like(w)] if w.ndim < 2 else [np.zeros_like(w[..., :1]), np.zeros_like(w[..., :1, :])]

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        fresh = t**self.beta2_decay
        epsilon = np.finfo(w.dtype).eps if self.epsilon_1 is None else self.epsilon_1
        means = [g**2] if w.ndim < 2 else [(g**2).mean(axis, keepdims=True) for axis in (-1, -2)]
        s[:] = [(1 - fresh) * old + fresh * new for old, new in zip(s, means, strict=True)]
        v_hat = s[0] if w.ndim < 2 else s[0] * s[1] / np.maximum(s[0].mean(-2, keepdims=True), epsilon)
        u = g / np.maximum(np.sqrt(v_hat), epsilon)
        length = max(self.epsilon_2, rms(w)) * min(self.learning_rate, t**-0.5) / max(1.0, rms(u) / self.d)
        return w - self.learning_rate * self.wdecay * w - length * u


def rms(a: Array) -> float:
    """The root of the mean square; 0 where there is nothing."""
    return float(np.sqrt(np.mean(a**2))) if a.size else 0.0


@dataclass(kw_only=True)
class LAMB(Adam):
    """u = m̂ / (√v̂ + ε) + λθ, θ ← θ − α·φ·u with φ = ‖θ‖/‖u‖ of the tensor; φ = 1 where a norm is 0."""

    tuned: ClassVar = {
        "lamb, tuned": {"learning_rate": 0.02, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01, "wdecay": 0.3},
        "lamb, bounded": {"learning_rate": 0.02, "epsilon": 0.25, "wdecay": 0.0, "trust_clip": True},
    }
    float32_ulp = 4.6  # 4.54: clip by value
    decoupled_decay = True
    epsilon: float = 1e-6
    wdecay: float = 0.01
    trust_clip: bool = False

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        u = self.direction(g, s, t) + self.wdecay * w
        sizes = np.sqrt(np.sum(w**2)), np.sqrt(np.sum(u**2))
        ratio = sizes[0] / sizes[1] if min(sizes) > 0 else 1.0
        return w - self.learning_rate * (min(ratio, 1.0) if self.trust_clip else ratio) * u


@dataclass(kw_only=True)
class ShiftAdaMax(Reference):
    """m ← β₁m + (1−β₁)g, v ← max(β₂v, |g|), and products replaced by shifts; t = epoch + 1."""

    cases: ClassVar = {"shift": {}}
    tuned: ClassVar = {"shift, tuned": {"learning_rate": 0.03, "beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01}}
    never_negative = frozenset({"exp_inf"})
    float32_ulp = 4.3  # 4.21: all options
    states = 2
    learning_rate: float = 0.002
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        s[0] = self.beta_1 * s[0] + (1 - self.beta_1) * g
        s[1] = np.maximum(self.beta_2 * s[1], np.abs(g))
        rate = np.asarray(self.learning_rate / (1 - self.beta_1 ** (epoch + 1)))
        return np.clip(w - shift(shift(s[0], 1 / (s[1] + self.epsilon)), rate), -1.0, 1.0)


def shift(a: Array, b: Array) -> Array:
    """a·sign(b)·2^rint(log₂|b|): the product of a and b, with b rounded to a power of two."""
    return a * np.sign(b) * np.exp2(np.rint(np.log2(np.abs(b))))


for file in sorted(Path(__file__).parent.glob("reference_*.py")):
    import_module(file.stem)
