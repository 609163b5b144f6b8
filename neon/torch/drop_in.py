"""torch.optim's classes by name, arguments, defaults, formulas and states, over neon's steps."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from neon.engine.refusals.combinations import check_sizes
from neon.messages import received
from neon.stepping.group_names import named_parameters
from neon.stepping.group_states import Items, count_of, put_states
from neon.stepping.overrides import Rows
from neon.torch.described import (
    AdadeltaRule,
    AdafactorRule,
    AdagradRule,
    AdamRule,
    DecoupledOptions,
    DropIn,
    GraphOptions,
    LionRule,
    Options,
    RMSpropRule,
    SGDRule,
    two_betas,
)


class SGD(DropIn):
    """torch.optim.SGD (Robbins & Monro 1951; momentum as Sutskever et al. 2013, the rate outside the buffer).

        g ← g + λw;  b ← μb + (1−τ)g, in the first step b ← g;  w ← w − lr·b;  with `nesterov`: w ← w − lr·(g + μb)

    `momentum` is μ, `dampening` τ, `weight_decay` λ. The other arguments are described at `DropIn`.

    >>> import torch
    >>> w = torch.nn.Parameter(torch.tensor(1.0))
    >>> optimizer = SGD([w], lr=0.1, momentum=0.9, gradient_clip_value=0.5)
    >>> for _ in range(2):
    ...     w.grad = torch.tensor(4.0)
    ...     optimizer.step()
    >>> round(w.item(), 6), round(optimizer.state[w]["momentum_buffer"].item(), 6)
    (0.855, 0.95)
    """

    rule = SGDRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float | Tensor = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[GraphOptions],
    ) -> None:
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                "nesterov=True needs a momentum greater than 0 and no dampening. "
                f"Received: momentum={momentum!r}, dampening={dampening!r}."
            )
        self._take(locals())


class Adam(DropIn):
    """torch.optim.Adam (Kingma & Ba 2015; `amsgrad` as Reddi, Kale & Kumar 2018).

        g ← g + λw;  m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  w ← w − lr · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε)

    With `amsgrad` the largest v so far is divided by. With `decoupled_weight_decay` lr·λ·w is subtracted
    from w in place of the first equation. `weight_decay` is λ, `eps` ε, and t counts the updates of each
    tensor. The other arguments are described at `DropIn`.
    """

    rule = AdamRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self._take(locals())

    def _take(self, given: dict[str, Any]) -> None:
        betas = two_betas(given["betas"])
        for name, value in (("lr", given["lr"]), ("betas", betas[0])):
            if isinstance(value, Tensor) and given["foreach"] and not given["capturable"]:
                raise ValueError(f"{name} as a tensor does not go with foreach=True. Leave foreach out.")
        if not any(all(isinstance(beta, kind) for beta in betas) for kind in (float, Tensor)):
            raise ValueError(f"betas must be two floats or two tensors. {received('betas', given['betas'])}")
        super()._take(given | {"betas": betas})


class AdamW(Adam):
    """torch.optim.AdamW (Loshchilov & Hutter 2019): Adam whose weight decay does not pass through the averages.

        w ← w − lr·λ·w − lr · m/(1−β₁ᵗ) / (√(v/(1−β₂ᵗ)) + ε)

    The arguments are Adam's.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[DecoupledOptions],
    ) -> None:
        if not options.pop("decoupled_weight_decay", True):  # one of `defaults`, by which others rebuild an optimizer
            raise ValueError("AdamW has decoupled_weight_decay=True. Received: False. Use Adam.")
        self._take(locals() | {"decoupled_weight_decay": True})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:  # a checkpoint of Adam's says otherwise; torch's class overrules it too
            group["decoupled_weight_decay"] = True


class RMSprop(DropIn):
    """torch.optim.RMSprop (Tieleman & Hinton 2012; `centered` as Graves 2013).

        g ← g + λw;  v ← αv + (1−α)g²;  w ← w − lr·g / (√v + ε)

    With `centered` √(v − m²) is divided by, m ← αm + (1−α)g. With `momentum` μ what is divided goes into
    a buffer b ← μb + g / (√v + ε), and w ← w − lr·b. `alpha` is α, `weight_decay` λ, `eps` ε. The other
    arguments are described at `DropIn`.
    """

    rule = RMSpropRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self._take(locals())


class Adagrad(DropIn):
    """torch.optim.Adagrad (Duchi, Hazan & Singer 2011).

        g ← g + λw;  s ← s + g²;  w ← w − lr/(1 + (t−1)η) · g / (√s + ε)

    `lr_decay` is η, `weight_decay` λ, `eps` ε; s starts at `initial_accumulator_value`, which a group may
    have of its own (torch has one for all groups), at the first step of a tensor (torch: when constructed).
    The other arguments are described at `DropIn`.
    """

    rule = AdagradRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        **options: Unpack[GraphOptions],
    ) -> None:
        self._take(locals())

    def share_memory(self) -> None:
        """Put the sums into memory that processes share, for training by several processes without locks.

        Frozen layers are left as they are.
        """
        rows, items = Rows(self.param_groups), Items(self.state)
        for place, group in enumerate(self.param_groups):
            check_sizes(group["params"], "share_memory()")
            updated = [
                (row, name, param)
                for name, param in named_parameters(group)
                if (row := rows.of(place, name)) is not None
            ]
            settings = {row: self._rules.settings(rows.listed[row][1]) for row in {row for row, *_ in updated}}
            for row, name, param in updated:
                item = items.make(name, param, 0, 0, settings[row], None)
                put_states(self.state, param, item, count_of(item), settings[row], set())
                for tensor in item.kept.values():
                    tensor.share_memory_()


class Adadelta(DropIn):
    """torch.optim.Adadelta (Zeiler 2012).

        g ← g + λw;  v ← ρv + (1−ρ)g²;  Δ ← √((u+ε)/(v+ε))·g;  u ← ρu + (1−ρ)Δ²;  w ← w − lr·Δ

    `rho` is ρ, `weight_decay` λ, `eps` ε. The other arguments are described at `DropIn`.
    """

    rule = AdadeltaRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
        **options: Unpack[Options],
    ) -> None:
        self._take(locals())


class Adafactor(DropIn):
    """torch.optim.Adafactor (Shazeer & Stern 2018, with torch's places of ε₁).

        R, C ← means of g² over rows and columns, as R ← R + t^τ·(mean − R);  v = R·C / max(mean of R, ε₁)
        u = g / max(√v, ε₁);  w ← w − lr·λ·w − max(ε₂, rms(w))·min(lr, 1/√t) · u / max(1, rms(u)/d)

    Rows and columns are those of the last two dimensions; tensors of fewer keep v ← v + t^τ·(g² − v). `beta2_decay`
    is τ, `eps` are ε₁ and ε₂, `weight_decay` λ, and t counts the updates of each tensor. With ε₁ = None it is the
    precision of each parameter's dtype: torch's loop takes that of a group's first for all. The other arguments are
    described at `DropIn`; `row_var` and `col_var` are float32 of parameters of 16 bits.
    """

    rule = AdafactorRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        **options: Unpack[GraphOptions],
    ) -> None:
        self._take(locals())


class Lion(DropIn):
    """Lion (Chen et al. 2023), which torch.optim does not have, in the manner of its classes.

        w ← w − lr·(sign(β₁m + (1−β₁)g) + λw);  m ← β₂m + (1−β₂)g

    `lr` a tenth to a third of AdamW's is usual, `weight_decay` λ three to ten times as large. The other
    arguments are described at `DropIn`.

    >>> import torch
    >>> w = torch.nn.Parameter(torch.tensor(1.0))
    >>> optimizer = Lion([w], lr=0.1, weight_decay=0.5)
    >>> w.grad = torch.tensor(4.0)
    >>> optimizer.step()
    >>> round(w.item(), 6), round(optimizer.state[w]["exp_avg"].item(), 6)
    (0.85, 0.04)
    """

    rule = LionRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        **options: Unpack[GraphOptions],
    ) -> None:
        self._take(locals() | {"betas": two_betas(betas)})
