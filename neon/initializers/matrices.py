"""Matrices as first values: given ones (Array), orthonormal ones (Orthonormal), the identity (IdentityInit)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neon.backends.arrays import as_tensor
from neon.initializers.initializer import Initializer, a_name, check_has_fans
from neon.messages import shown


@dataclass(frozen=True, eq=False, repr=False)
class Array(Initializer):
    """The values of `val`, a tensor, an array or nested lists, which are copied when the initializer is made.

    It has the parameter's shape, or the one that the documented framework gives it: (n, 1) for a bias of n, (channels ·
    height · width, filters) for the weight of a convolution.

    >>> weight = torch.empty(2, 2)
    >>> Array([[1.0, 2.0], [3.0, 4.0]]).fill(weight)
    >>> weight
    tensor([[1., 2.],
            [3., 4.]])
    """

    val: Any
    name: str | None = a_name()

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            copied = as_tensor(self.val).detach().clone()
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(
                f"Array's val must be a tensor or an array of numbers. Received: {shown(self.val)}"
            ) from error
        object.__setattr__(self, "val", copied)

    def __repr__(self) -> str:
        return f"Array({shown(self.val)})"

    @torch.no_grad()
    def fill(self, tensor: Tensor) -> None:
        values = self.val
        if tensor.ndim == 1 and values.shape == (len(tensor), 1):
            values = values[:, 0]
        elif tensor.ndim == 4 and values.shape == tensor.flatten(1).T.shape:
            values = values.T.reshape(tensor.shape)
        if values.ndim and values.shape != tensor.shape:
            raise ValueError(
                f"Array's val must have the parameter's shape, {tuple(tensor.shape)}. Received: {shown(self.val)} "
                f"of shape {tuple(self.val.shape)}"
            )
        tensor.copy_(values)


@dataclass(frozen=True)
class Orthonormal(Initializer):
    """`scale` times a random matrix with orthonormal rows, or columns where these are fewer (Saxe et al. 2013).

    The filters of a convolution are the rows. `scale` is any finite number, by default 1.1.

    >>> weight = torch.empty(3, 5)
    >>> Orthonormal(scale=2.0).fill(weight)
    >>> (weight @ weight.T).round(decimals=4).abs()
    tensor([[4., 0., 0.],
            [0., 4., 0.],
            [0., 0., 4.]])
    """

    scale: float = 1.1
    name: str | None = a_name()
    finite = ("scale",)

    @torch.no_grad()
    def fill(self, tensor: Tensor) -> None:
        check_has_fans("Orthonormal", tensor)
        # in float64: formats of few bits have no decomposition
        matrix = torch.empty(tensor.flatten(1).shape, dtype=torch.float64, device=tensor.device)
        nn.init.orthogonal_(matrix, self.scale)
        tensor.copy_(matrix.reshape(tensor.shape))


@dataclass(frozen=True)
class IdentityInit(Initializer):
    """1 where output and input have the same number, else 0. The filters of a convolution are the outputs, and every
    value of a window is an input. `local` is as Kaiming has it: either value gives the same.

    >>> weight = torch.empty(2, 3)
    >>> IdentityInit().fill(weight)
    >>> weight
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """

    local: bool = True
    name: str | None = a_name()

    @torch.no_grad()
    def fill(self, tensor: Tensor) -> None:
        check_has_fans("IdentityInit", tensor)
        rows, columns = tensor.flatten(1).shape
        tensor.copy_(torch.eye(rows, columns, dtype=tensor.dtype, device=tensor.device).reshape(tensor.shape))
