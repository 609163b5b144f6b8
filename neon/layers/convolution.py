"""Layers over images, (N, channels, height, width): Convolution, Pooling."""

from __future__ import annotations

from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from neon.initializers import Initializer
from neon.layers.layer import (
    InferringLayer,
    Layer,
    check_count,
    check_init,
    check_pair,
    describe,
)
from neon.messages import shown

__all__ = ["Convolution", "Pooling"]


class Convolution(InferringLayer):
    """A convolution with K filters of height R and width S, without bias.

    Args:
        fshape: (R, S, K).
        init: of the weight, which has torch's shape (K, channels, R, S).
        strides: pixels from one window to the next, an int or (height, width). Default 1.
        padding: rows and columns of zeros on each side, an int or (height, width). Default 0.
    """

    weight: Parameter

    def __init__(
        self,
        fshape: tuple[int, int, int],
        init: Initializer,
        strides: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if not isinstance(fshape, (tuple, list)) or len(fshape) != 3:
            raise ValueError(
                f"Convolution's fshape must be (height, width, number of filters), such as "
                f"(3, 3, 64). Received: {shown(fshape)}"
            )
        height, width, filters = (check_count(self, "fshape", size) for size in fshape)
        self.fshape = (height, width, filters)
        self.init = check_init(self, init)
        self.strides = check_pair(self, "strides", strides)
        self.padding = check_pair(self, "padding", padding, least=0)
        self.declare("weight", (filters, None, height, width))

    def features(self, x: Tensor) -> int:
        if x.ndim != 4:
            raise ValueError(
                f"{describe(self)} takes images (N, channels, height, width). Received: inputs of "
                f"shape {tuple(x.shape)}. Put a Reshape((channels, height, width)) before it"
            )
        return x.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, stride=self.strides, padding=self.padding)

    def extra_repr(self) -> str:
        return f"{self.fshape}, init={self.init}, strides={self.strides}, padding={self.padding}"


class Pooling(Layer):
    """The maximum (op="max") or the mean (op="avg") of each window.

    Args:
        fshape: the window, an int or (height, width).
        strides: pixels from one window to the next, an int or (height, width). Default: the
            window's size, so that windows touch and do not overlap.
        padding: rows and columns on each side, at most half the window. Default 0.
    """

    def __init__(
        self,
        fshape: int | tuple[int, int],
        op: str = "max",
        strides: int | tuple[int, int] | None = None,
        padding: int | tuple[int, int] = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if op not in ("max", "avg"):
            raise ValueError(f'Pooling\'s op must be "max" or "avg". Received: {shown(op)}')
        self.op = op
        self.fshape = check_pair(self, "fshape", fshape)
        self.strides = self.fshape if strides is None else check_pair(self, "strides", strides)
        self.padding = check_pair(self, "padding", padding, least=0)
        if any(2 * pad > size for pad, size in zip(self.padding, self.fshape, strict=True)):
            raise ValueError(
                f"Pooling's padding must be at most half its window. "
                f"Received: padding={shown(padding)} with fshape={shown(fshape)}"
            )

    def forward(self, x: Tensor) -> Tensor:
        pool = F.max_pool2d if self.op == "max" else F.avg_pool2d
        return pool(x, self.fshape, self.strides, self.padding)

    def extra_repr(self) -> str:
        return f"{self.fshape}, op={self.op!r}, strides={self.strides}, padding={self.padding}"
