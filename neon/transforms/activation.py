"""What an Activation layer applies: Identity, Rectlin, Logistic, Tanh, Softmax."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from neon.initializers.initializer import check_finite
from neon.messages import shown

__all__ = ["Identity", "Logistic", "Rectlin", "Softmax", "Tanh", "Transform"]


class Transform:
    """A function from a tensor to a tensor of the same shape, for `Activation`."""

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, x)")


@dataclass(frozen=True)
class Identity(Transform):
    """y = x"""

    def __call__(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Rectlin(Transform):
    """y = max(x, 0) + slope · min(x, 0). With a slope (default 0), a leaky rectifier.

    >>> Rectlin(slope=0.1)(torch.tensor([-2.0, 3.0]))
    tensor([-0.2000,  3.0000])
    """

    slope: float = 0.0

    def __post_init__(self) -> None:
        check_finite("Rectlin", "slope", self.slope)

    def __call__(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)


@dataclass(frozen=True)
class Logistic(Transform):
    """y = 1 / (1 + e⁻ˣ)

    >>> Logistic()(torch.tensor([0.0, 2.0]))
    tensor([0.5000, 0.8808])
    """

    def __call__(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


@dataclass(frozen=True)
class Tanh(Transform):
    """y = tanh x"""

    def __call__(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


@dataclass(frozen=True)
class Softmax(Transform):
    """yᵢ = e^xᵢ / Σⱼ e^xⱼ along `axis` (default: the last).

    >>> Softmax()(torch.tensor([[0.0, 1.0]]))
    tensor([[0.2689, 0.7311]])
    """

    axis: int = -1

    def __post_init__(self) -> None:
        if isinstance(self.axis, bool) or not isinstance(self.axis, int):
            raise TypeError(f"Softmax's axis must be an int. Received: {shown(self.axis)}")

    def __call__(self, x: Tensor) -> Tensor:
        return torch.softmax(x, self.axis)
