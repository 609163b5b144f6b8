"""Layers made of layers: Sequential, and neon's Affine, Conv and Deconv."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

from torch import Tensor, nn

from neon.arguments import flag
from neon.backends import NervanaObject
from neon.initializers import Constant, Initializer
from neon.layers.activation import Activation
from neon.layers.convolution import Convolution, Deconvolution, Filters, Pair
from neon.layers.dense import Bias, Linear
from neon.layers.layer import Layer, ParameterLayer, Transformation, check_name, check_transform, describe
from neon.layers.normalization import BatchNorm
from neon.layers.shapes import Sizes, allocate, sizes_after, sizes_given, undone_on_error, zeros_like_inputs
from neon.messages import shown
from neon.old_paths import names_of

__all__ = ["Affine", "Conv", "Deconv", "Sequential"]


class Sequential(nn.Module):
    """Layers in a row. Any `torch.nn.Module` is a layer; nested lists are flattened.

    In qualified names, as `named_parameters` gives them, a layer goes by its name where it has one
    of its own, else by its position: "layer_one.weight", "1.weight".

    `be` is the backend that `gen_backend` sets; `in_shape` and `out_shape` are those of one sample, once configured.
    """

    be = NervanaObject.be
    in_shape: Sizes | None = None
    out_shape: Sizes | None = None

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

    def configure(self, in_obj: Any) -> Self:
        """Configure each layer with the `out_shape` of the one before it, as `Layer.configure` says; return itself."""
        sizes = given = sizes_given(describe(self), in_obj)
        with undone_on_error(self):
            for layer in self.layers:
                if isinstance(layer, (Layer, Sequential)):
                    sizes = layer.configure(sizes).out_shape
                else:
                    sizes = sizes_after(layer, zeros_like_inputs(layer, sizes), describe(layer))
                assert sizes is not None
        self.in_shape, self.out_shape = given, sizes
        return self

    def allocate(self, shared_outputs: Any = None, accumulate_updates: bool = False) -> None:
        """Give every parameter a gradient of zeros, where it has none, as `Layer.allocate` says."""
        allocate(self, describe(self))

    @property
    def layers_to_optimize(self) -> list[nn.Module]:
        """The layers with parameters, those of containers in their place; any of torch's modules counts as one."""
        found: list[nn.Module] = []
        for layer in self.layers:
            if isinstance(layer, Sequential):
                found += layer.layers_to_optimize
            elif isinstance(layer, ParameterLayer) or next(layer.parameters(), None) is not None:
                found.append(layer)
        return found

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


@ParameterLayer.register
class Affine(Sequential):
    """A Linear, a Bias and an Activation in a row.

    Args:
        nout: number of outputs.
        init: of the weight.
        bias: of the Bias. Default Constant(0.0); None leaves the Bias out.
        activation: the transform. Default None: no Activation.
        batch_norm: with a BatchNorm before the Activation. Default False.
        parallelism: taken, means nothing here.
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
        parallelism: str = "Disabled",
    ) -> None:
        linear = Linear(nout, init)
        super().__init__([linear, *followers(self, bias, batch_norm, activation)], name)


class FiltersInARow(Sequential):
    """What Conv and Deconv share."""

    kind: type[Convolution] | type[Deconvolution]

    def __init__(
        self,
        fshape: Filters,
        init: Initializer,
        strides: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        bias: Initializer | None = None,
        batch_norm: bool = False,
        activation: Transformation | None = None,
        name: str | None = None,
    ) -> None:
        if isinstance(dilation, Initializer):
            raise TypeError(
                f"{type(self).__name__}'s dilation must be an int. Received: {shown(dilation)}. If this was meant as "
                "the bias, name it: bias=..."
            )
        layer = self.kind(fshape, init, strides, padding, dilation=dilation)
        super().__init__([layer, *followers(self, bias, batch_norm, activation)], name)


@ParameterLayer.register
class Conv(FiltersInARow):
    """A Convolution and, where asked for, a Bias, a BatchNorm and an Activation in a row.

    Args:
        fshape, init, strides, padding, dilation: as Convolution has them.
        bias: of the Bias. Default None: no Bias.
        batch_norm: with a BatchNorm. Default False.
        activation: the transform. Default None: no Activation.
    """

    kind = Convolution


@ParameterLayer.register
class Deconv(FiltersInARow):
    """A Deconvolution and, where asked for, a Bias, a BatchNorm and an Activation in a row.

    Args:
        fshape, init, strides, padding, dilation: as Deconvolution has them.
        bias, batch_norm, activation: as Conv has them.
    """

    kind = Deconvolution


def followers(
    layer: nn.Module, bias: Initializer | None, batch_norm: bool, activation: Transformation | None
) -> list[nn.Module]:
    """What comes after a Linear or a Convolution."""
    batch_norm = flag(f"{type(layer).__name__}'s batch_norm", batch_norm)
    if activation is not None:
        activation = check_transform(layer, activation, "activation")
    found: list[nn.Module] = [] if bias is None else [Bias(bias)]
    if batch_norm:
        found.append(BatchNorm())
    return found if activation is None else [*found, Activation(activation)]


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
