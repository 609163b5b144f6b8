"""What an Activation layer applies: Identity, Rectlin, Rectlinclip, Explin, Logistic, Tanh, Softmax."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from neon.arguments import check_finite, flag, plain
from neon.initializers.initializer import Described, a_name
from neon.messages import shown

__all__ = ["Explin", "Identity", "Logistic", "Rectlin", "Rectlinclip", "Softmax", "Tanh", "Transform"]


class Transform(Described):
    """A function from a tensor to a tensor of the same shape, for `Activation`. A `bprop` is not called: gradients are
    autograd's.

    A `name` is kept, and means nothing: transforms are equal if they do the same.
    """

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must define __call__(self, x)")


@dataclass(frozen=True)
class Identity(Transform):
    """y = x"""

    name: str | None = a_name()

    def __call__(self, x: Tensor) -> Tensor:
        return x


@dataclass(frozen=True)
class Rectlin(Transform):
    """y = max(x, 0) + slope · min(x, 0). With a slope (default 0), a leaky rectifier.

    >>> Rectlin(slope=0.1)(torch.tensor([-2.0, 3.0]))
    tensor([-0.2000,  3.0000])
    """

    slope: float = 0.0
    name: str | None = a_name()
    finite = ("slope",)

    def __call__(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)


@dataclass(frozen=True)
class Rectlinclip(Transform):
    """y = min(max(x, 0) + slope · min(x, 0), xcut). By default slope is 0 and xcut 20.

    >>> Rectlinclip(slope=0.1, xcut=2.0)(torch.tensor([-2.0, 1.0, 3.0]))
    tensor([-0.2000,  1.0000,  2.0000])
    """

    slope: float = 0.0
    name: str | None = a_name()
    xcut: float = 20.0
    finite = ("slope", "xcut")

    def __call__(self, x: Tensor) -> Tensor:
        return Rectlin(self.slope)(x).clamp_max(self.xcut)


@dataclass(frozen=True)
class Explin(Transform):
    """y = max(x, 0) + α (e^min(x, 0) − 1), with α = `alpha` (default 1) (Clevert et al. 2016).

    >>> Explin(alpha=2.0)(torch.tensor([-1.0, 3.0]))
    tensor([-1.2642,  3.0000])
    """

    alpha: float = 1.0
    name: str | None = a_name()
    finite = ("alpha",)

    def __call__(self, x: Tensor) -> Tensor:
        return F.elu(x, self.alpha)


@dataclass(frozen=True)
class Logistic(Transform):
    """y = 1 / (1 + e⁻ˣ)

    `shortcut` is taken and means nothing: gradients are exact, and a cost that fuses with this is given what goes in.

    >>> Logistic()(torch.tensor([0.0, 2.0]))
    tensor([0.5000, 0.8808])
    """

    name: str | None = a_name()
    shortcut: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        flag("Logistic's shortcut", self.shortcut)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


@dataclass(frozen=True)
class Tanh(Transform):
    """y = tanh x"""

    name: str | None = a_name()

    def __call__(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


@dataclass(frozen=True)
class Softmax(Transform):
    """yᵢ = e^xᵢ / Σⱼ e^xⱼ along `axis` (default: the last, which holds classes; of images all but the first).

    The documented framework's axis 0 holds classes; here it holds the samples of a minibatch, and is refused. `epsilon`
    is taken and means nothing, as there.

    >>> Softmax()(torch.tensor([[0.0, 1.0]]))
    tensor([[0.2689, 0.7311]])
    """

    axis: int = -1
    name: str | None = a_name()
    epsilon: float = field(default=2**-23, compare=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_finite("Softmax", "epsilon", self.epsilon)
        axis = plain(self.axis)
        if isinstance(axis, bool) or not isinstance(axis, int):
            raise TypeError(f"Softmax's axis must be an int. Received: {shown(self.axis)}")
        if axis == 0:
            raise ValueError(
                "Softmax's axis must not be 0: that holds the samples here, which would depend on each other. "
                "Received: axis=0. Leave axis out: the default holds the classes."
            )

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim == 4 and self.axis == -1:  # the width holds no classes
            return torch.softmax(x.flatten(1), -1).reshape(x.shape)
        return torch.softmax(x, self.axis)
