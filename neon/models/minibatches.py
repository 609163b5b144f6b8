"""Minibatches of a dataset, as a model reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neon.backends.arrays import as_tensor
from neon.layers.shapes import framework_order
from neon.messages import received

Dataset = Iterable[Any]
_ARRAYS = (Tensor, np.ndarray)


def minibatches(dataset: Dataset, like: Tensor, *, in_order: bool = False) -> Iterator[tuple[Tensor, Any]]:
    """The (inputs, targets) of a dataset on the device of a tensor, floating-point ones in its dtype.

    Targets may be a pair of arrays: a GeneralizedCostMask takes them with a mask.

    With `in_order`, those that the dataset's method of that name gives, where it has one.
    """
    ordered = getattr(dataset, "in_order", None) if in_order else None
    given: Iterable[Any] = ordered() if callable(ordered) else dataset  # type: ignore[assignment] - DataLoader's is a flag
    batch = None
    for batch in given:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise TypeError(
                "A dataset must give (inputs, targets) minibatches, as ArrayIterator(X, y) "
                f"does. Received: a {type(batch).__name__}"
            )
        yield place(batch[0], like), place_targets(batch[1], like)
    if batch is None:
        raise ValueError(
            "The dataset gave no minibatch. A generator gives them only once: pass a list, a "
            "DataLoader or an ArrayIterator instead."
        )


def first_inputs(dataset: Any, like: Tensor) -> Tensor:
    """Inputs to give layers their shapes by: of the first minibatch, or zeros of the shape that the dataset has.

    The dataset itself may be such a shape, as `Layer.configure` has it: a number of features, (features,),
    (features, T) or (channels, height, width). Reading a minibatch leaves torch's random numbers where they were.
    """
    is_shape = isinstance(dataset, tuple) and all(isinstance(size, (int, np.integer)) for size in dataset)
    if hasattr(dataset, "__iter__") and not is_shape:
        if hasattr(dataset, "__next__"):
            raise TypeError("A generator gives minibatches only once: pass a list, a DataLoader or an ArrayIterator.")
        with torch.random.fork_rng(devices=[]):
            return next(minibatches(dataset, like, in_order=True))[0]
    shape = getattr(dataset, "shape", dataset)
    sizes = shape if isinstance(shape, (tuple, list)) else (shape,)
    if not sizes or not all(isinstance(size, (int, np.integer)) and size > 0 for size in sizes):
        raise TypeError(
            "dataset must give minibatches or have the shape of one input, such as 784 or (1, 28, 28). "
            f"{received('dataset', dataset)}"
        )
    sizes = framework_order(tuple(map(int, sizes)))
    return torch.zeros(1, *sizes, dtype=like.dtype, device=like.device)


def place(values: Any, like: Tensor) -> Tensor:
    """Values as a tensor on the device of another, in its dtype if they are floating-point numbers."""
    tensor = as_tensor(values)
    return tensor.to(like.device, like.dtype if tensor.is_floating_point() else tensor.dtype)


def place_targets(values: Any, like: Tensor) -> Any:
    """Targets as a tensor, or a pair of arrays as a pair of tensors."""
    is_pair = isinstance(values, tuple) and len(values) == 2 and all(isinstance(v, _ARRAYS) and v.ndim for v in values)
    return tuple(place(value, like) for value in values) if is_pair else place(values, like)
