"""What every layer has in common: a name, parameters for neon's optimizers, inferred sizes."""

from __future__ import annotations

import warnings
from abc import ABCMeta
from collections.abc import Callable
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy

from neon.arguments import plain
from neon.assignment.param_list import Entry, param_entry
from neon.backends import NervanaObject
from neon.initializers import Array, Initializer
from neon.layers.shapes import Sizes, allocate, let_go, sizes_after, sizes_given, undone_on_error, zeros_like_inputs
from neon.messages import shown
from neon.old_paths import names_of

__all__ = ["InferringLayer", "Layer", "ParameterLayer"]

Shape = tuple[int | None, ...]
Transformation = Callable[[Tensor], Tensor]
IMAGES = "images (N, channels, height, width)"


class Layer(nn.Module):
    """A torch module with a `name` (None by default) that a MultiOptimizer can be keyed on.

    `be` is the backend that `gen_backend` sets. `in_shape` and `out_shape` are those of one sample, known once the
    layer is configured: (features,), (features, T) or (channels, height, width). `parallelism` is taken from programs
    of the documented framework and means nothing here.
    """

    be = NervanaObject.be
    in_shape: Sizes | None = None
    out_shape: Sizes | None = None
    told: ClassVar[tuple[str, ...]] = ()  # the attributes that `repr` tells

    def __init__(self, name: str | None = None, parallelism: str = "Unknown", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.name = check_name(self, name)

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError(
            f"{type(self).__name__} must define forward(self, x): fprop and bprop are not called here, and gradients "
            "are autograd's."
        )

    def configure(self, in_obj: Any) -> Self:
        """Give the parameters their shapes and first values, and the layer its `in_shape` and `out_shape`.

        A layer does this by itself with its first minibatch; one that has been configured keeps its values. Neither
        its mode nor any average of minibatches changes.

        Args:
            in_obj: the shape of one sample without the minibatch: an int (features), (features, T) or (channels,
                height, width); or what has one: a configured layer, a dataset with a `shape`, a minibatch.

        Returns the layer. Raises `TypeError` for what has no shape, `ValueError` for one that does not fit; nothing is
        changed then.
        """
        sizes = sizes_given(describe(self), in_obj)
        with undone_on_error(self):
            self.out_shape = sizes_after(self, self.blank(sizes), describe(self))
        self.in_shape = sizes
        return self

    def allocate(self, shared_outputs: Any = None, accumulate_updates: bool = False) -> None:
        """Give every parameter a gradient of zeros, where it has none, so that `get_params` can be optimized at once.

        The arguments mean nothing here: memory is torch's. Raises `ValueError` before the layer is configured.
        """
        allocate(self, describe(self))

    def blank(self, sizes: Sizes) -> Tensor:
        """A minibatch of one sample of zeros for `configure`, from what it was given."""
        return zeros_like_inputs(self, sizes)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.told)

    def get_params(self) -> Entry | list[Entry]:
        """((param, grad), states) of the only parameter, or a list of them for none or several."""
        entries = [param_entry(parameter) for parameter in self.parameters()]
        return entries[0] if len(entries) == 1 else entries


class InferredBuffer(UninitializedBuffer):
    """torch's uninitialized buffer, which cannot be copied, made to follow `copy.deepcopy`."""

    def __deepcopy__(self, memo: dict[int, Any]) -> InferredBuffer:
        like: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        return memo.setdefault(id(self), InferredBuffer(**like))


class ParameterLayer(Layer, metaclass=ABCMeta):
    """A layer with parameters. Affine, Conv and Deconv, which are layers in a row, count as one too.

    Args:
        init: of the parameters.
        parallelism: taken, means nothing here.
    """

    init: Initializer

    def __init__(
        self, init: Initializer | None = None, name: str | None = None, parallelism: str = "Unknown", **kwargs: Any
    ) -> None:
        super().__init__(name, parallelism, **kwargs)
        if init is not None:
            self.init = check_init(self, init)


class InferringLayer(LazyModuleMixin, ParameterLayer):
    """A layer that learns its number of inputs from the first batch it sees.

    A subclass calls `declare` for each parameter and says how to count `features` and how to
    `initialize` the parameters once they have a shape. Until the first forward pass (or
    `load_state_dict`) the parameters are torch's UninitializedParameter.
    """

    shapes: dict[str, Shape]

    def __init__(self, name: str | None = None, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            # what older versions of torch say of lazy modules, each time one is made
            warnings.filterwarnings("ignore", message="Lazy modules are a new feature")
            # torch types the mixin by a protocol that its own Module does not meet
            super().__init__(name=name, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        self.shapes = {}

    def declare(self, name: str, shape: Shape, *, buffer: bool = False) -> None:
        """Make room for a parameter or buffer; None in `shape` stands for the number of inputs."""
        self.shapes[name] = shape
        if buffer:
            self.register_buffer(name, InferredBuffer())
        else:
            setattr(self, name, UninitializedParameter())

    def is_waiting(self) -> bool:
        """Whether a parameter or a buffer has no shape yet."""
        return any(is_lazy(tensor) for tensor in (*self.parameters(), *self.buffers()))

    def features(self, x: Tensor) -> int:
        """The number of inputs: the size of the dimension that holds features or channels."""
        return x.shape[feature_dim(x)]

    @torch.no_grad()
    def initialize(self) -> None:
        """Give the parameters their first values."""
        for parameter in self.parameters():
            self.init.fill(parameter)

    def initialize_parameters(self, x: Tensor) -> None:
        """Give the parameters shape and values; torch calls it once, before the first forward pass."""
        if not self.is_waiting():
            return
        features = self.features(x)
        waiting = {name: type(getattr(self, name)) for name in self.shapes if is_lazy(getattr(self, name))}
        for name in waiting:
            getattr(self, name).materialize(tuple(features if n is None else n for n in self.shapes[name]))
        try:
            self.initialize()
        except BaseException:
            for name, kind in waiting.items():  # half initialized: it goes back to waiting
                let_go(getattr(self, name), kind)
            raise


def feature_dim(x: Tensor) -> int:
    """Images, (N, channels, height, width), hold features in dimension 1; vectors, (N, features),
    and sequences, (N, T, features), in the last.
    """
    return 1 if x.ndim == 4 else x.ndim - 1


def describe(layer: nn.Module) -> str:
    """A layer as error messages call it, such as Linear 'layer_one'."""
    name = getattr(layer, "name", None)
    return f"{type(layer).__name__} {name!r}" if name else type(layer).__name__


def check_dims(layer: nn.Module, x: Tensor, wanted: str, *dims: int, hint: str = "") -> None:
    """Refuse inputs of another number of dimensions than a layer takes."""
    if x.ndim not in dims:
        raise ValueError(f"{describe(layer)} takes {wanted}. Received: inputs of shape {tuple(x.shape)}{hint}")


def check_name(layer: nn.Module, name: object) -> str | None:
    if name is None or isinstance(name, str):
        return name
    raise TypeError(f"{type(layer).__name__}'s name must be a string or None. Received: {shown(name)}")


def check_init(layer: nn.Module, init: object, argument: str = "init") -> Initializer:
    if isinstance(init, (Tensor, np.ndarray)):
        return Array(init)
    if isinstance(init, Initializer):
        return init
    raise TypeError(
        f"{type(layer).__name__}'s {argument} must be an initializer such as Gaussian(scale=0.01). "
        f"Received: {shown(init)}"
    )


def check_transform(layer: nn.Module, transform: Any, argument: str = "transform") -> Transformation:
    """A transform of neon.transforms, or any function of a tensor."""
    if callable(transform) and not isinstance(transform, type):
        return cast(Transformation, transform)
    written = f"{transform.__name__}()" if isinstance(transform, type) else "Rectlin()"
    meant = f". If this was meant as batch_norm, name it: batch_norm={transform}." * isinstance(transform, bool)
    raise TypeError(
        f"{type(layer).__name__}'s {argument} must be an object to call, such as {written}. "
        f"Received: {shown(transform)}{meant}"
    )


def check_count(layer: nn.Module, argument: str, value: object, least: int = 1) -> int:
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{type(layer).__name__}'s {argument} must be an int. Received: {shown(value)}")
    if value < least:
        raise ValueError(f"{type(layer).__name__}'s {argument} must be {least} or more. Received: {shown(value)}")
    return value


__getattr__ = names_of("neon.layers", __name__)
