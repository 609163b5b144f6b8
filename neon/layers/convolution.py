"""Layers over images, (N, channels, height, width): Convolution, Deconvolution, Pooling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F

from neon.initializers import Initializer
from neon.layers.layer import IMAGES, InferringLayer, Layer, check_dims, check_init
from neon.layers.shapes import floating
from neon.layers.windows import check_filters, check_pair
from neon.messages import shown

Pair = int | tuple[int, int] | Mapping[str, int]
Filters = tuple[int, int, int] | Mapping[str, int]


class FilterLayer(InferringLayer):
    """What Convolution and Deconvolution share: filters that move over an image."""

    weight: Parameter
    # the key of the number of filters, where fshape is a dict
    key: str
    convolve: Callable[..., Tensor]

    def __init__(
        self,
        fshape: Filters,
        init: Initializer,
        strides: Pair = 1,
        padding: Pair = 0,
        name: str | None = None,
        *,
        dilation: Pair = 1,
        bsum: bool = False,
        parallelism: str = "Data",
    ) -> None:
        super().__init__(name=name)
        self.fshape = check_filters(self, fshape, self.key)
        self.init = check_init(self, init)
        self.strides = check_pair(self, "strides", strides)
        self.padding = check_pair(self, "padding", padding)
        self.dilation = check_pair(self, "dilation", dilation)
        *window, filters = self.fshape
        outputs_first = (filters, None) if self.key == "K" else (None, filters)
        self.declare("weight", (*outputs_first, *window))

    def features(self, x: Tensor) -> int:
        check_dims(self, x, IMAGES, 4, hint=". Put a Reshape((channels, height, width)) before it")
        return x.shape[1]

    def forward(self, x: Tensor) -> Tensor:
        moves: dict[str, Any] = {"stride": self.strides, "padding": self.padding, "dilation": self.dilation}
        return self.convolve(floating(x, self.weight), self.weight, **moves)

    def extra_repr(self) -> str:
        dilated = f", dilation={self.dilation}" if self.dilation != (1, 1) else ""
        return f"{self.fshape}, init={self.init}, strides={self.strides}, padding={self.padding}{dilated}"


class Convolution(FilterLayer):
    """A convolution with K filters of height R and width S, without bias.

        height ← ⌊(height + 2·padding − dilation·(R − 1) − 1) / stride⌋ + 1, and the width alike

    Args:
        fshape: (R, S, K), or a dict with these keys.
        init: of the weight, which has torch's shape (K, channels, R, S).
        strides: pixels from one window to the next: an int, (height, width) or a dict with the keys `str_h` and
            `str_w`, of which a missing one is 1. Default 1.
        padding: rows and columns of zeros on each side, likewise (`pad_h`, `pad_w`). Default 0.
        dilation: pixels from one value of a window to the next, likewise (`dil_h`, `dil_w`). Default 1.
        bsum, parallelism: taken, mean nothing here.
    """

    key, convolve = "K", staticmethod(F.conv2d)


class Deconvolution(FilterLayer):
    """The transpose of a convolution with filters of height R and width S: C output channels, without bias.

        height ← (height − 1)·stride − 2·padding + dilation·(R − 1) + 1, and the width alike

    Args:
        fshape: (R, S, C), or a dict with these keys.
        init: of the weight, which has torch's shape (channels, C, R, S).
        strides, padding, dilation: of the convolution, in the forms that Convolution takes.
        bsum, parallelism: taken, mean nothing here.
    """

    key, convolve = "C", staticmethod(F.conv_transpose2d)


class Pooling(Layer):
    """The maximum (op="max") or the mean (op="avg") of each window.

    Args:
        fshape: the window: an int, (height, width), a dict with the keys `R` and `S`, or "all", the whole image.
        strides: pixels from one window to the next: an int, (height, width) or a dict with the keys `str_h` and
            `str_w`. Default, also of a missing key: the window's size, so that windows touch and do not overlap.
        padding: rows and columns on each side, at most half the window: likewise (`pad_h`, `pad_w`). Default 0.
    """

    def __init__(
        self,
        fshape: Pair | str,
        op: str = "max",
        strides: Pair | None = None,
        padding: Pair = 0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        if op not in ("max", "avg"):
            raise ValueError(f'Pooling\'s op must be "max" or "avg". Received: {shown(op)}')
        if isinstance(fshape, str) and fshape != "all":
            raise ValueError(f'Pooling\'s fshape must be an int, (height, width) or "all". Received: {shown(fshape)}')
        self.op = op
        self.fshape = None if isinstance(fshape, str) else check_pair(self, "fshape", fshape)
        window = self.fshape or (1, 1)  # a window over the whole image is the only one
        self.strides = window if strides is None else check_pair(self, "strides", strides, window)
        self.padding = check_pair(self, "padding", padding)
        if self.fshape is None and self.padding != (0, 0):
            raise ValueError(f'Pooling\'s padding must be 0 with fshape="all". Received: padding={shown(self.padding)}')
        if self.fshape and any(2 * pad > size for pad, size in zip(self.padding, self.fshape, strict=True)):
            raise ValueError(
                f"Pooling's padding must be at most half its window. "
                f"Received: padding={shown(padding)} with fshape={shown(fshape)}"
            )

    def forward(self, x: Tensor) -> Tensor:
        pool = F.max_pool2d if self.op == "max" else F.avg_pool2d
        return pool(x, self.fshape or tuple(x.shape[2:]), self.strides, self.padding)

    def extra_repr(self) -> str:
        return f"{self.fshape or 'all'}, op={self.op!r}, strides={self.strides}, padding={self.padding}"
