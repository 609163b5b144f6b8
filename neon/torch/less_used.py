"""Those of torch.optim's classes that few programs use, over neon's steps: relatives of Adam, averaged SGD, Rprop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from neon.arguments import non_negative
from neon.engine.program.numbers import several
from neon.engine.program.options import Check
from neon.engine.program.trace import Rule
from neon.optimizers.adamax import adamax
from neon.optimizers.asgd import asgd, finite
from neon.optimizers.nadam import nadam, nadamw
from neon.optimizers.radam import radam, radamw
from neon.optimizers.rprop import grows, rprop, shrinks
from neon.torch.described import DropIn, Options, TorchRule, two_betas


class NAdamRule(TorchRule):
    """NAdam with either weight decay."""

    rule = staticmethod(nadam)
    _bounds: ClassVar[Mapping[str, Check]] = {**TorchRule._bounds, "momentum_decay": non_negative}

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        return nadamw if values["decoupled_weight_decay"] else nadam


class RAdamRule(TorchRule):
    """RAdam with either weight decay."""

    rule = staticmethod(radam)

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        return radamw if values["decoupled_weight_decay"] else radam


class AdamaxRule(TorchRule):
    """AdaMax, by torch's spelling."""

    rule = staticmethod(adamax)


class ASGDRule(TorchRule):
    """Averaged SGD, of which torch allows every number."""

    rule = staticmethod(asgd)
    _bounds: ClassVar[Mapping[str, Check]] = {
        **TorchRule._bounds, "lambd": finite, "alpha": finite, "t0": finite,
    }  # fmt: skip


class RpropRule(TorchRule):
    """Rprop, whose steps have bounds."""

    rule = staticmethod(rprop)
    _bounds: ClassVar[Mapping[str, Check]] = {
        **TorchRule._bounds,
        "etas": several([shrinks, grows], [0.5, 1.2]),
        "step_sizes": several([finite, finite], [1e-6, 50.0]),
    }


class NAdam(DropIn):
    """torch.optim.NAdam (Dozat 2016).

        g ← g + λw;  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  μₜ = β₁(1 − ½·0.96^(tψ));  Π ← Π·μₜ
        w ← w − lr · ((1−μₜ)g/(1−Π) + μₜ₊₁m/(1−Πμₜ₊₁)) / (√(v/(1−β₂ᵗ)) + ε)

    With `decoupled_weight_decay` lr·λ·w is subtracted from w in place of the first equation. `momentum_decay` is ψ,
    `weight_decay` λ, `eps` ε, and t counts the updates of each tensor. Π, the state `mu_product`, is a float64 tensor
    of one number (torch: float32). The other arguments are described at `DropIn`.
    """

    rule = NAdamRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self._take(locals() | {"betas": two_betas(betas)})


class RAdam(DropIn):
    """torch.optim.RAdam (Liu et al. 2020).

        g ← g + λw;  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  m̂ = m/(1−β₁ᵗ)
        ρ∞ = 2/(1−β₂) − 1;  ρ = ρ∞ − 2tβ₂ᵗ/(1−β₂ᵗ);  r = √((ρ−4)(ρ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρ))
        w ← w − lr·m̂·r·√(1−β₂ᵗ)/(√v + ε)  where ρ > 5, else  w ← w − lr·m̂

    With `decoupled_weight_decay` lr·λ·w is subtracted from w in place of the first equation. `weight_decay` is λ, `eps`
    ε, and t counts the updates of each tensor. The other arguments are described at `DropIn`.
    """

    rule = RAdamRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self._take(locals() | {"betas": two_betas(betas)})


class Adamax(DropIn):
    """torch.optim.Adamax (Kingma & Ba 2015).

        g ← g + λw;  m ← β₁m + (1−β₁)g;  u ← max(β₂u, |g| + ε);  w ← w − lr/(1−β₁ᵗ) · m/u

    `weight_decay` is λ, `eps` ε, and t counts the updates of each tensor. The other arguments are described at
    `DropIn`.
    """

    rule = AdamaxRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self._take(locals() | {"betas": two_betas(betas)})


class ASGD(DropIn):
    """torch.optim.ASGD (Polyak & Juditsky 1992): as in torch, a new rate acts one step late.

        g ← g + γw;  w ← w − (ληw + ηg);  ax ← ax + μ(w − ax);  then η = lr/(1 + λ·lr·t)^α and μ = 1/max(1, t − t₀)

    `lambd` is λ, `alpha` α, `t0` t₀, `weight_decay` γ, and t counts the updates of each tensor; η is lr in the first
    step, and μ is 1. The states `eta` and `mu` are float64 tensors of one number (torch: float32); `ax`, the mean of
    the weights, is float32 of parameters of 16 bits. The other arguments are described at `DropIn`.
    """

    rule = ASGDRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self._take(locals())


class Rprop(DropIn):
    """torch.optim.Rprop (Riedmiller & Braun 1993; without going back, as Igel & Hüsken 2000), for whole batches.

        δ ← δη⁺ where g has the sign of before, δη⁻ and g ← 0 where it has the other;  w ← w − sign(g)·δ

    `etas` are η⁻ and η⁺, δ starts at lr and stays within `step_sizes`. The signs are compared, and not the product of
    the gradients, which vanishes where both are small. A `weight_decay`, which torch has not, is added to the gradient.
    The other arguments are described at `DropIn`.
    """

    rule = RpropRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        weight_decay: float = 0,
        **options: Unpack[Options],
    ) -> None:
        self._take(locals())
