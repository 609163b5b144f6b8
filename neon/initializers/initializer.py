"""How a layer's parameters get their first values. Random ones come from torch's generator:
`torch.manual_seed(0)` repeats them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from neon.arguments import keep_finite, optional_name
from neon.backends import NervanaObject
from neon.messages import shown
from neon.old_paths import names_of

__all__ = ["Constant", "Gaussian", "GlorotUniform", "Initializer", "Kaiming", "Uniform", "Xavier"]


def a_name() -> Any:
    """The field of a name: it says nothing of what an object does, so equality and `repr` leave it out."""
    return field(default=None, compare=False, repr=False)


class Described:
    """What initializers and transforms share: `be`, a `name` that means nothing, and fields that are checked."""

    be = NervanaObject.be
    name: str | None = None
    finite: ClassVar[tuple[str, ...]] = ()  # the fields that must be finite numbers

    def __init__(self, name: str | None = None) -> None:
        self.name = optional_name(f"{type(self).__name__}'s name", name)

    def __post_init__(self) -> None:
        optional_name(f"{type(self).__name__}'s name", self.name)
        keep_finite(self, *self.finite)


class Initializer(Described, ABC):
    """Fills a parameter in place. Subclass it and write `fill` for one of your own.

    Weights come in torch's layout: (outputs, inputs) for a Linear, (filters, channels, height,
    width) for a Convolution. Both directions of a layer's fan can be read from it. Layers call
    `fill` without autograd. A `name` is kept, and means nothing.
    """

    @abstractmethod
    def fill(self, tensor: Tensor) -> None:
        """Overwrite every element of `tensor`."""


@dataclass(frozen=True)
class Gaussian(Initializer):
    """Normal values with mean `loc` and standard deviation `scale` (0 or more).

    >>> weight = torch.empty(1000, 1000)
    >>> Gaussian(loc=1.0, scale=0.01).fill(weight)
    >>> f"{weight.mean():.3f} {weight.std():.3f}"
    '1.000 0.010'
    """

    loc: float = 0.0
    scale: float = 1.0
    name: str | None = a_name()
    finite = ("loc", "scale")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale < 0:
            raise ValueError(f"Gaussian's scale is a standard deviation, 0 or more. Received: {shown(self.scale)}")

    def fill(self, tensor: Tensor) -> None:
        nn.init.normal_(tensor, self.loc, self.scale)


@dataclass(frozen=True)
class Uniform(Initializer):
    """Values spread evenly over [low, high).

    >>> weight = torch.empty(1000, 1000)
    >>> Uniform(low=-0.5, high=1.5).fill(weight)
    >>> f"{weight.min():.2f} {weight.mean():.2f} {weight.max():.2f}"
    '-0.50 0.50 1.50'
    """

    low: float = 0.0
    high: float = 1.0
    name: str | None = a_name()
    finite = ("low", "high")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low > self.high:
            raise ValueError(
                f"Uniform's low must not be above its high. Received: low={shown(self.low)}, high={shown(self.high)}"
            )

    def fill(self, tensor: Tensor) -> None:
        nn.init.uniform_(tensor, self.low, self.high)


@dataclass(frozen=True)
class Constant(Initializer):
    """Every element is `val`.

    >>> bias = torch.empty(2)
    >>> Constant(0.5).fill(bias)
    >>> bias
    tensor([0.5000, 0.5000])
    """

    val: float = 0.0
    name: str | None = a_name()
    finite = ("val",)

    def __post_init__(self) -> None:
        if isinstance(self.val, (Tensor, np.ndarray)) and self.val.ndim:
            raise TypeError(f"Constant's val must be a number. Received: {shown(self.val)}. Write Array(val).")
        super().__post_init__()

    def fill(self, tensor: Tensor) -> None:
        nn.init.constant_(tensor, self.val)


@dataclass(frozen=True)
class GlorotUniform(Initializer):
    """Uniform over ±√(6 / (fan_in + fan_out)) (Glorot and Bengio 2010). A bias of n has one input and n outputs.

    >>> weight = torch.empty(1000, 500)
    >>> GlorotUniform().fill(weight)
    >>> f"{weight.abs().max():.4f}"                 # √(6 / 1500)
    '0.0632'
    """

    name: str | None = a_name()

    @torch.no_grad()
    def fill(self, tensor: Tensor) -> None:
        weight = tensor.unsqueeze(-1) if tensor.ndim == 1 else tensor
        check_has_fans("GlorotUniform", weight)
        nn.init.xavier_uniform_(weight)


@dataclass(frozen=True)
class Xavier(Initializer):
    """Uniform over ±√(3 / fan_in): GlorotUniform with the inputs alone, for weights.

    `local` is as Kaiming has it: either value gives the same.

    >>> weight = torch.empty(500, 1200)
    >>> Xavier(local=False).fill(weight)
    >>> f"{weight.abs().max():.4f}"                 # √(3 / 1200)
    '0.0500'
    """

    local: bool = True
    name: str | None = a_name()

    def fill(self, tensor: Tensor) -> None:
        check_has_fans("Xavier", tensor)
        nn.init.kaiming_uniform_(tensor, nonlinearity="linear")


@dataclass(frozen=True)
class Kaiming(Initializer):
    """Normal with mean 0 and standard deviation √(2 / fan_in) (He et al. 2015), for weights that a Rectlin follows.

    `local` is neon's word for a convolution's layout of weights. The tensor's own shape says here
    what the fan-in is, so either value gives the same.

    >>> weight = torch.empty(100, 32, 5, 5)
    >>> Kaiming().fill(weight)
    >>> f"{weight.std():.2f}"                       # √(2 / 800)
    '0.05'
    """

    local: bool = True
    name: str | None = a_name()

    def fill(self, tensor: Tensor) -> None:
        check_has_fans("Kaiming", tensor)
        nn.init.kaiming_normal_(tensor, nonlinearity="relu")


def check_has_fans(owner: str, tensor: Tensor) -> None:
    """Raise unless `tensor` has the two dimensions that a fan-in and a fan-out need."""
    if tensor.ndim < 2:
        raise ValueError(
            f"{owner} needs a weight with inputs and outputs. Received: a tensor of shape "
            f"{tuple(tensor.shape)}. Initialize a bias with Constant(0.0) instead."
        )


__getattr__ = names_of("neon.initializers", __name__)
