"""Layers without parameters: Activation, Dropout, Reshape."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from neon.arguments import check_finite
from neon.layers.layer import Layer, check_count, check_transform, describe
from neon.messages import shown


class Activation(Layer):
    """y = transform(x), with a transform of `neon.transforms` or any function of a tensor."""

    def __init__(self, transform: Callable[[Tensor], Tensor], name: str | None = None) -> None:
        super().__init__(name=name)
        self.transform = check_transform(self, transform)

    def forward(self, x: Tensor) -> Tensor:
        return self.transform(x)

    def extra_repr(self) -> str:
        return f"{self.transform}"


class Dropout(Layer):
    """Keeps each value with probability `keep` (default 0.5, in (0, 1]) and sets the others to 0.

    While training, what is kept is divided by `keep`, as torch does it, so that nothing needs to
    be scaled afterwards: in evaluation the layer does nothing.
    """

    told = ("keep",)

    def __init__(self, keep: float = 0.5, name: str | None = None) -> None:
        super().__init__(name=name)
        self.keep = check_finite("Dropout", "keep", keep)
        if not 0 < self.keep <= 1:
            raise ValueError(f"Dropout's keep is the probability of keeping a value, in (0, 1]. Received: {keep!r}")

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 1 - self.keep, self.training)


class Reshape(Layer):
    """Gives each sample another shape: `Reshape((1, 8, 8))` makes images of vectors of 64.

    One size may be -1, to be worked out; `Reshape((-1,))` flattens. A size of 0 is the one that the sample has there.
    """

    def __init__(self, reshape: Sequence[int], name: str | None = None) -> None:
        super().__init__(name=name)
        if not isinstance(reshape, (tuple, list)):
            raise TypeError(
                f"Reshape's reshape must be the shape of one sample, such as (1, 8, 8). Received: {shown(reshape)}"
            )
        self.reshape = tuple(check_count(self, "reshape", size, least=-1) for size in reshape)

    def forward(self, x: Tensor) -> Tensor:
        kept = x.shape[1:]
        sizes = [kept[i] if size == 0 and i < len(kept) else size for i, size in enumerate(self.reshape)]
        try:
            return x.reshape(len(x), *sizes)
        except RuntimeError as error:
            raise ValueError(
                f"{describe(self)} cannot give samples of shape {tuple(x.shape[1:])} the shape "
                f"{self.reshape}: the number of values differs"
            ) from error

    def extra_repr(self) -> str:
        return f"{self.reshape}"
