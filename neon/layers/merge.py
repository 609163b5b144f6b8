"""Layers in parallel, which all get the same inputs: MergeSum, MergeBroadcast; SkipNode, a path of nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn

from neon.layers.container import Sequential
from neon.layers.layer import Layer, Transformation, describe, feature_dim
from neon.layers.shapes import sizes_after, sizes_given, undone_on_error, zeros_like_inputs
from neon.messages import received, shown


class SkipNode(Layer):
    """y = x: the path that goes around the others, as in a residual network (He et al. 2015)."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Paths(Sequential):
    """What MergeSum and MergeBroadcast share: each of `layers`, a layer or a list of them, gets the same inputs."""

    def __init__(self, layers: Iterable[Any], name: str | None = None) -> None:
        if isinstance(layers, nn.Module) or not isinstance(layers, Iterable):
            raise TypeError(f"{type(self).__name__}'s layers must be a list of paths. {received('layers', layers)}")
        paths = [path if isinstance(path, nn.Module) else Sequential(path) for path in layers]
        if not paths:
            raise ValueError(f"{type(self).__name__} needs at least one path. Received: an empty list")
        super().__init__(paths, name)

    def forward(self, x: Tensor) -> Tensor:
        outputs = [path(x) for path in self.layers]
        try:
            return self.merged(outputs)
        except (RuntimeError, IndexError) as error:
            shapes = ", ".join(str(tuple(output.shape[1:])) for output in outputs)
            raise ValueError(f"{describe(self)} cannot merge samples of shapes {shown(shapes)}") from error

    def merged(self, outputs: list[Tensor]) -> Tensor:
        """One tensor from the outputs of the paths."""
        raise NotImplementedError

    def configure(self, in_obj: Any) -> Self:
        """Configure each path with the same `in_obj`, as `Layer.configure` says; return itself."""
        sizes = sizes_given(describe(self), in_obj)
        with undone_on_error(self):
            for path in self.layers:
                if isinstance(path, (Layer, Sequential)):
                    path.configure(sizes)
            self.out_shape = sizes_after(self, zeros_like_inputs(self, sizes), describe(self))
        self.in_shape = sizes
        return self

    @property
    def last_transform(self) -> Transformation | None:
        """None: what the paths end in is not what the merged outputs are."""
        return None


class MergeSum(Paths):
    """y = Σ path(x), over paths whose outputs have the same shape: a residual block, with a SkipNode as one of them.

    Args:
        layers: the paths, each a layer, a Sequential or a list of layers.
    """

    def merged(self, outputs: list[Tensor]) -> Tensor:
        if len({output.shape for output in outputs}) > 1:  # never broadcast
            raise RuntimeError("shapes differ")
        return sum(outputs[1:], outputs[0])


class MergeBroadcast(Paths):
    """The outputs of the paths beside each other.

    Args:
        layers: the paths, each a layer, a Sequential or a list of layers.
        merge: "depth" puts features behind each other, those of images being channels; "recurrent" the steps of
            sequences (N, T, features); "stack" all values of a sample, as a vector.
        alphas: None or ones; weights of the gradients of the paths are refused.
    """

    def __init__(
        self, layers: Iterable[Any], merge: str, alphas: Iterable[float] | None = None, name: str | None = None
    ) -> None:
        if merge not in _MERGED:
            raise ValueError(f"MergeBroadcast's merge must be one of {', '.join(_MERGED)}. {received('merge', merge)}")
        alphas = [] if alphas is None else list(alphas)
        if any(alpha != 1 for alpha in alphas):
            raise ValueError(
                f"MergeBroadcast's alphas must be ones. {received('alphas', alphas)} Leave them out, and give each "
                "path a layer that scales its gradient."
            )
        super().__init__(layers, name)
        self.merge = merge

    def merged(self, outputs: list[Tensor]) -> Tensor:
        return _MERGED[self.merge](outputs)

    def extra_repr(self) -> str:
        return f"merge={self.merge!r}"


def _steps_behind(outputs: list[Tensor]) -> Tensor:
    for output in outputs:
        if output.ndim != 3:
            raise ValueError(
                "MergeBroadcast's merge='recurrent' takes sequences (N, T, features). Received: outputs of shape "
                f"{tuple(output.shape)}. To put features behind each other, write merge='depth'."
            )
    return torch.cat(outputs, 1)


_MERGED: dict[str, Callable[[list[Tensor]], Tensor]] = {
    "depth": lambda outputs: torch.cat(outputs, feature_dim(outputs[0])),
    "recurrent": _steps_behind,
    "stack": lambda outputs: torch.cat([output.flatten(1) for output in outputs], 1),
}
