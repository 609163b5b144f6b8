"""BatchNorm."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from neon.arguments import flag
from neon.initializers.initializer import check_finite
from neon.layers.layer import InferringLayer, feature_dim, floating
from neon.messages import shown

__all__ = ["BatchNorm"]


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

    def extra_repr(self) -> str:
        return f"rho={self.rho}, eps={self.eps}"
