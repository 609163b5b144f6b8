"""BatchNorm, and LRN, the normalization that AlexNet had."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from neon.arguments import check_finite, flag
from neon.layers.layer import IMAGES, InferringLayer, Layer, check_count, check_dims, feature_dim
from neon.layers.shapes import floating
from neon.messages import shown


class BatchNorm(InferringLayer):
    """y = γ (x − mean) / √(variance + ε) + β for each feature (Ioffe and Szegedy 2015).

    Mean and variance are the minibatch's while training; in evaluation they are running averages,
    mean' = ρ·mean + (1−ρ)·minibatch's. γ starts at 1 and β at 0.

    Args:
        rho: ρ, in [0, 1]. Default 0.9 (torch's momentum is 1 − ρ).
        eps: ε, above 0. Default 1e-3.
        binary: False; shifts in place of products are refused.
    """

    beta: Parameter
    gamma: Parameter
    running_mean: Tensor
    running_var: Tensor
    told = ("rho", "eps")

    def __init__(self, rho: float = 0.9, eps: float = 1e-3, name: str | None = None, binary: bool = False) -> None:
        super().__init__(name=name)
        self.rho = check_finite("BatchNorm", "rho", rho)
        self.eps = check_finite("BatchNorm", "eps", eps)
        if not 0 <= self.rho <= 1:
            raise ValueError(f"BatchNorm's rho must be in [0, 1]. Received: {shown(rho)}")
        if self.eps <= 0:
            raise ValueError(f"BatchNorm's eps must be above 0. Received: {shown(eps)}")
        if flag("BatchNorm's binary", binary):
            raise ValueError(
                "BatchNorm's binary must be False: there is no normalization by shifts here. Received: binary=True. "
                "Leave it out."
            )
        self.declare("beta", (None,))
        self.declare("gamma", (None,))
        self.declare("running_mean", (None,), buffer=True)
        self.declare("running_var", (None,), buffer=True)

    @torch.no_grad()
    def initialize(self) -> None:
        for zeros in (self.beta, self.running_mean):
            zeros.zero_()
        for ones in (self.gamma, self.running_var):
            ones.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        dim = feature_dim(x)
        # torch wants features in dimension 1: for sequences they are moved there and back
        y = F.batch_norm(
            floating(x, self.gamma).movedim(dim, 1),
            self.running_mean,
            self.running_var,
            weight=self.gamma,
            bias=self.beta,
            training=self.training,
            momentum=1 - self.rho,
            eps=self.eps,
        )
        return y.movedim(1, dim)


class LRN(Layer):
    """y = x / (1 + ascale/depth · Σ x²)^bpower for images, the sum over `depth` channels around each (Krizhevsky 2012).

    Computed in float32 at least.

    Args:
        depth: how many channels, an odd number: (depth − 1) / 2 on either side, zeros beyond the first and the last.
        alpha, beta: 1 and 0; they scale nothing, and other values are refused.
        ascale: the weight of the mean square. Default 1.
        bpower: the exponent. Default 1.
    """

    told = ("depth", "ascale", "bpower")

    def __init__(
        self,
        depth: int,
        alpha: float = 1.0,
        beta: float = 0.0,
        ascale: float = 1.0,
        bpower: float = 1.0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.depth = check_count(self, "depth", depth)
        if self.depth % 2 == 0:
            raise ValueError(f"LRN's depth must be odd. Received: {shown(depth)}")
        self.ascale = check_finite("LRN", "ascale", ascale)
        self.bpower = check_finite("LRN", "bpower", bpower)
        if (alpha, beta) != (1, 0):
            raise ValueError(
                f"LRN's alpha and beta must be 1 and 0. Received: {shown((alpha, beta))}. The scale is ascale and the "
                "exponent bpower."
            )

    def forward(self, x: Tensor) -> Tensor:
        check_dims(self, x, IMAGES, 4)
        around = self.depth // 2
        wide = x if x.dtype == torch.float64 else x.float()  # squares of 300 overflow float16
        squares = F.pad(wide.square(), (0, 0, 0, 0, around, around)).unfold(1, self.depth, 1).mean(-1)
        y = wide / (1 + self.ascale * squares) ** self.bpower
        return y.to(x.dtype) if x.is_floating_point() else y
