"""Shapes of samples as the documented framework has them: what `configure` is given, and what comes out of a layer.

Without the minibatch, vectors are (features,), sequences (features, T), images (channels, height, width). Tensors have
the minibatch first and the features of a sequence last: (N, T, features).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neon.arguments import plain
from neon.messages import received, shortened

Sizes = tuple[int, ...]

_WANTED = "the number of features, or the shape of one sample, such as (3, 32, 32)"


def sizes_given(layer: str, in_obj: Any) -> Sizes:
    """The shape of one sample, from an int, a shape, a configured layer, a minibatch or a dataset with a `shape`."""
    found = plain(in_obj)
    if isinstance(found, (Tensor, np.ndarray)):
        found = framework_order(tuple(found.shape[1:]))
    for attribute in ("out_shape", "shape", "lshape"):
        if not isinstance(found, (int, tuple, list)) and hasattr(found, attribute):
            found = plain(getattr(found, attribute))
            if found is None:
                raise ValueError(
                    f"{layer}'s in_obj must have a shape, but its {attribute} is None. {received('in_obj', in_obj)} "
                    "Give it one first: in_obj.configure(...)."
                )
    sizes = (found,) if isinstance(found, int) else found
    if not isinstance(sizes, (tuple, list)) or not all(type(size) is int for size in sizes):
        raise TypeError(
            f"{layer}'s in_obj must be {_WANTED}, a configured layer or a dataset with a shape. "
            f"{received('in_obj', in_obj)}"
        )
    if not 1 <= len(sizes) <= 3 or min(sizes) < 1:
        raise ValueError(
            f"{layer}'s in_obj must have one to three sizes of 1 or more: (features,), (features, steps) or "
            f"(channels, height, width). {received('in_obj', in_obj)}"
        )
    return tuple(sizes)


def framework_order(shape: Sizes) -> Sizes:
    """(T, features) as (features, T) and the other way round; vectors and images are alike in both."""
    return shape[::-1] if len(shape) == 2 else shape


def floating(x: Tensor, weight: Tensor) -> Tensor:
    """Whole numbers, such as pixels of 8 bits, in the dtype of a weight; others as they are."""
    return x if x.is_floating_point() or x.is_complex() else x.to(weight.dtype)


def zeros_like_inputs(module: nn.Module, sizes: Sizes) -> Tensor:
    """A minibatch of one sample of zeros, where the module is and in its dtype."""
    floating = (parameter for parameter in module.parameters() if parameter.is_floating_point())
    like = next(floating, None)
    place = ("cpu", torch.float32) if like is None else (like.device, like.dtype)
    return torch.zeros((1, *framework_order(sizes)), device=place[0], dtype=place[1])


def sizes_after(module: nn.Module, x: Tensor, layer: str) -> Sizes:
    """The shape of a sample that a module makes of one in `x`.

    The module runs as in evaluation, without gradients: no mask is drawn, no average changed. Its modes are as before.
    """
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False  # train() would tell the parts that the mode changes
        with torch.no_grad():
            y = module(x)
    except RuntimeError as error:
        raise ValueError(
            f"{layer} cannot take samples of shape {framework_order(tuple(x.shape[1:]))} as in_obj gives them: "
            f"{shortened(str(error), 200)}"
        ) from error
    finally:
        for part, training in modes:
            part.training = training
    if not isinstance(y, Tensor):
        raise TypeError(f"{layer} must return one tensor to be configured. Received: a {type(y).__name__}")
    return framework_order(tuple(y.shape[1:]))


@contextmanager
def undone_on_error(module: nn.Module) -> Iterator[None]:
    """After an error within, what had no shape has none again, and each part of the module is what it was."""
    parts = [(part, type(part), _contents(part)) for part in module.modules()]
    waiting = [(t, type(t)) for t in (*module.parameters(), *module.buffers()) if is_lazy(t)]
    try:
        yield
    except BaseException:
        for tensor, kind in waiting:
            let_go(tensor, kind)
        for part, kind, contents in parts:
            part.__class__ = kind  # torch's lazy modules become others
            vars(part).clear()
            for name, (value, items) in contents.items():
                vars(part)[name] = value
                if items is not None:  # a dict, which the handles of hooks refer to: the same one, as it was
                    value.clear()
                    value.update(items)
        raise


def _contents(part: nn.Module) -> dict[str, tuple[Any, dict[Any, Any] | None]]:
    """The attributes of a module, each with a copy of what it holds where it is a dict."""
    return {name: (value, dict(value) if isinstance(value, dict) else None) for name, value in vars(part).items()}


def let_go(tensor: Tensor, kind: type) -> None:
    """Make a tensor one that waits for its shape again, of the class that it had."""
    if not is_lazy(tensor):
        tensor.data = tensor.data.new_empty(0)
        tensor.__class__ = kind


def allocate(module: nn.Module, layer: str) -> None:
    """Give every parameter that is trained and has no gradient one of zeros."""
    if any(is_lazy(parameter) for parameter in module.parameters()):
        raise ValueError(
            f"{layer} cannot allocate gradients: its parameters have no shape yet. Write "
            f"layer.configure(in_obj) first, with in_obj {_WANTED}."
        )
    for parameter in module.parameters():
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
