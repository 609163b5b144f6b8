"""Layers made of layers: Sequential, and neon's Affine and Conv."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from neon.initializers import Constant, Initializer
from neon.layers.activation import Activation
from neon.layers.convolution import Convolution
from neon.layers.dense import Bias, Linear
from neon.layers.layer import check_name
from neon.layers.normalization import BatchNorm
from neon.messages import shown
from neon.old_paths import names_of

__all__ = ["Affine", "Conv", "Sequential"]

Transformation = Callable[[Tensor], Tensor]


class Sequential(nn.Module):
    """Layers in a row. Any `torch.nn.Module` is a layer; nested lists are flattened.

    In qualified names, as `named_parameters` gives them, a layer goes by its name where it has one
    of its own, else by its position: "layer_one.weight", "1.weight".
    """

    def __init__(self, layers: Iterable[Any], name: str | None = None) -> None:
        super().__init__()
        self.name = check_name(self, name)
        for position, layer in enumerate(flatten(layers)):
            self.add_module(self.child_name(layer, position), layer)

    def child_name(self, layer: nn.Module, position: int) -> str:
        name = getattr(layer, "name", None)
        # torch allows neither dots nor an attribute's name; digits could be another's position
        if not isinstance(name, str) or "." in name or not name or name.isdigit():
            return str(position)
        return str(position) if hasattr(self, name) else name

    @property
    def layers(self) -> tuple[nn.Module, ...]:
        """The layers in order; one that is used twice is there twice."""
        return tuple(layer for layer in self._modules.values() if layer is not None)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x

    @property
    def last_transform(self) -> Transformation | None:
        """What the last Activation applies, where the last layer is one."""
        last = self.layers[-1] if self.layers else None
        if isinstance(last, Sequential):
            return last.last_transform
        return last.transform if isinstance(last, Activation) else None

    def logits(self, x: Tensor) -> Tensor:
        """The output before `last_transform`; the output itself where there is none."""
        if self.last_transform is None:
            return self(x)
        *body, last = self.layers
        for layer in body:
            x = layer(x)
        return last.logits(x) if isinstance(last, Sequential) else x


class Affine(Sequential):
    """A Linear, a Bias and an Activation in a row.

    Args:
        nout: number of outputs.
        init: of the weight.
        bias: of the Bias. Default Constant(0.0); None leaves the Bias out.
        activation: the transform. Default None: no Activation.
        batch_norm: with a BatchNorm before the Activation. Default False.
    """

    def __init__(
        self,
        nout: int,
        init: Initializer,
        bias: Initializer | None = Constant(0.0),  # noqa: B008 - immutable
        activation: Transformation | None = None,
        name: str | None = None,
        *,
        batch_norm: bool = False,
    ) -> None:
        linear = Linear(nout, init)
        super().__init__([linear, *followers(bias, batch_norm, activation)], name)


class Conv(Sequential):
    """A Convolution and, where asked for, a Bias, a BatchNorm and an Activation in a row.

    Args:
        fshape, init, strides, padding: as Convolution has them.
        bias: of the Bias. Default None: no Bias.
        batch_norm: with a BatchNorm. Default False.
        activation: the transform. Default None: no Activation.
    """

    def __init__(
        self,
        fshape: tuple[int, int, int],
        init: Initializer,
        strides: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        bias: Initializer | None = None,
        batch_norm: bool = False,
        activation: Transformation | None = None,
        name: str | None = None,
    ) -> None:
        convolution = Convolution(fshape, init, strides, padding)
        super().__init__([convolution, *followers(bias, batch_norm, activation)], name)


def followers(bias: Initializer | None, batch_norm: bool, activation: Transformation | None) -> Iterator[nn.Module]:
    """What comes after a Linear or a Convolution."""
    if bias is not None:
        yield Bias(bias)
    if batch_norm:
        yield BatchNorm()
    if activation is not None:
        yield Activation(activation)


def flatten(layers: Iterable[Any]) -> Iterator[nn.Module]:
    """The modules of a list, or of lists in lists."""
    if isinstance(layers, nn.Module) or not isinstance(layers, Iterable):
        raise TypeError(f"layers must be a list of layers. Received: {shown(layers)}")
    for layer in layers:
        if isinstance(layer, (list, tuple)):
            yield from flatten(layer)
        elif isinstance(layer, nn.Module):
            yield layer
        else:
            raise TypeError(
                f"A layer must be a torch.nn.Module, such as Affine(nout=10, init=Gaussian()). Received: {shown(layer)}"
            )


__getattr__ = names_of("neon.layers", __name__)
