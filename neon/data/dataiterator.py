"""Minibatches of arrays that fit in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.nn.functional import one_hot

from neon.arguments import flag, optional_name, positive_integer, whole_number
from neon.backends import NervanaObject
from neon.backends.arrays import as_tensor
from neon.messages import received, shown

__all__ = ["ArrayIterator", "NervanaDataIterator"]

# Where neither the dataset nor the backend is told another.
_USUAL_SIZE = 128


class NervanaDataIterator(NervanaObject):
    """A dataset of one's own: `__iter__` gives (inputs, targets) minibatches, samples first; `be` is the backend."""

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__(self)")


class ArrayIterator(NervanaDataIterator):
    """Iterates over (inputs, targets) minibatches of two arrays, one pass an epoch.

    `neon.models.Model` takes any iterable of such pairs, torch's DataLoader among them; this one
    slices whole minibatches, which is many times faster than collecting samples one by one.

    Args:
        X: inputs, samples first. Floating-point ones are held as float32. A list is one of samples.
        y: targets, as many. Integers (class numbers) are held as int64. Default None: the inputs
            themselves, as for an autoencoder.
        nclass: how many classes there are, 1 or more. The targets, (N,) or (N, 1) whole numbers from 0 to
            nclass − 1, come as (n, nclass) float32: 1 in the column of their class, else 0. Default None: as in y.
        lshape: the shape of one input, such as (1, 8, 8) for images. Default None: as in X.
        make_onehot: False keeps the targets as they are in y, whatever nclass is. Default True.
        name: of the dataset. It means nothing here.
        batch_size: samples in a minibatch, 1 or more; the last may be smaller. Default: what `gen_backend`
            was given in this process, else 128.
        shuffle: another order every epoch. Default True. `in_order()` is a pass without it: so `Model.eval` and
            `Model.get_outputs` read the dataset.
        seed: of the orders. The order of the k-th pass depends on seed and k alone.

    The documented framework fills the last minibatch up with samples of the next pass, and does not shuffle.

    Raises `ValueError` for another number of targets than inputs, labels that are no classes, an lshape that does not
    fit, or several arrays of inputs; `TypeError` for arguments of another type.

    >>> batches = ArrayIterator([[0.0], [1.0], [2.0]], [0, 1, 2], batch_size=2, shuffle=False)
    >>> [targets.tolist() for inputs, targets in batches]
    [[0, 1], [2]]
    >>> [targets.tolist() for _, targets in ArrayIterator([[0.0], [1.0]], [2, 0], nclass=3).in_order()]
    [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
    """

    def __init__(
        self,
        X: ArrayLike | Tensor | list[Any],  # noqa: N803 - the name that neon has
        y: ArrayLike | Tensor | None = None,
        nclass: int | None = None,
        lshape: Sequence[int] | None = None,
        make_onehot: bool = True,
        name: str | None = None,
        *,
        batch_size: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(optional_name("name", name))
        usual = self.be.bsz if self.be.has_batch_size else _USUAL_SIZE
        self.batch_size = usual if batch_size is None else positive_integer("batch_size", batch_size)
        self.nclass = None if nclass is None else positive_integer("nclass", nclass)
        self.inputs = as_samples("X", _one_array(X, y))
        self.targets = self.inputs if y is None else as_samples("y", y)
        if len(self.inputs) != len(self.targets):
            raise ValueError(
                f"ArrayIterator's X and y must hold as many samples. "
                f"Received: {len(self.inputs)} and {len(self.targets)}"
            )
        self.lshape = None if lshape is None else _checked_lshape(lshape, self.inputs)
        if self.lshape is not None:
            self.inputs = self.inputs.reshape(len(self.inputs), *self.lshape)
        self._one_hot = flag("make_onehot", make_onehot) and self.nclass is not None and y is not None
        if self._one_hot:
            self.targets = _labels(self.targets, self.nclass or 1)
        self.shuffle = flag("shuffle", shuffle)
        self.seed = whole_number("seed", seed)
        self.passes = 0

    @property
    def ndata(self) -> int:
        """The number of samples."""
        return len(self.inputs)

    @property
    def nbatches(self) -> int:
        """The number of minibatches."""
        return len(self)

    @property
    def shape(self) -> int | tuple[int, ...]:
        """The shape of one input; the number of its features where it has a single dimension."""
        sizes = tuple(self.inputs.shape[1:])
        return sizes[0] if len(sizes) == 1 else sizes

    def reset(self) -> None:
        """Does nothing: each pass begins with the first sample of its order."""

    def __len__(self) -> int:
        """The number of minibatches."""
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._minibatches(self.next_order())

    def in_order(self) -> Iterator[tuple[Tensor, Tensor]]:
        """A pass in the order of X, which counts as none: the orders of other passes stay what they are."""
        return self._minibatches(torch.arange(len(self.inputs), device="cpu"))

    def _minibatches(self, order: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            targets = self.targets[chosen]
            yield self.inputs[chosen], one_hot(targets, self.nclass or 1).float() if self._one_hot else targets

    def next_order(self) -> Tensor:
        samples = len(self.inputs)
        if not self.shuffle:
            return torch.arange(samples, device="cpu")
        order = np.random.default_rng([self.seed, self.passes]).permutation(samples)
        self.passes += 1
        return torch.from_numpy(order)


def as_samples(argument: str, values: Any) -> Tensor:
    try:
        tensor = as_tensor(values).detach()
    except (TypeError, ValueError):
        raise TypeError(
            f"ArrayIterator's {argument} must be an array of numbers, samples first. {received(argument, values)}"
        ) from None
    if tensor.ndim == 0 or len(tensor) == 0:
        raise ValueError(
            f"ArrayIterator's {argument} must hold samples in its first dimension. "
            f"Received: an array of shape {tuple(tensor.shape)}"
        )
    if tensor.is_complex():
        raise TypeError(f"ArrayIterator's {argument} must hold real numbers. {received(argument, values)}")
    return tensor.float() if tensor.is_floating_point() else tensor.long()


def _one_array(inputs: Any, y: Any) -> Any:
    """The inputs, of which the documented framework takes a list of several arrays for models with several inputs.

    Such a list is told apart from one of samples by the targets: there is one for each row of each array. Without
    targets, by arrays that differ in shape, which no samples do.
    """
    if not isinstance(inputs, list) or not all(isinstance(item, (np.ndarray, Tensor)) for item in inputs):
        return inputs
    shapes = {tuple(item.shape) for item in inputs}
    if y is None:
        is_several = len(shapes) > 1
    else:
        samples = len(y) if hasattr(y, "__len__") else 0
        is_several = len(inputs) != samples and {shape[0] if len(shape) > 1 else -1 for shape in shapes} == {samples}
    if is_several and len(inputs) == 1:
        return inputs[0]
    if is_several:
        raise ValueError(
            f"ArrayIterator's X must be one array: a Model here has a single input. Received: a list of {len(inputs)} "
            "arrays. Put them beside each other, np.concatenate(X, axis=1), and split them in the first layer."
        )
    return torch.stack(inputs) if all(isinstance(item, Tensor) for item in inputs) and inputs else inputs


def _checked_lshape(lshape: Any, inputs: Tensor) -> tuple[int, ...]:
    if not isinstance(lshape, (tuple, list)):
        raise TypeError(f"lshape must be the shape of one input, such as (1, 28, 28). {received('lshape', lshape)}")
    sizes = tuple(positive_integer("lshape", size) for size in lshape)
    features = inputs[0].numel()
    if math.prod(sizes) != features:
        raise ValueError(f"lshape must have as many values as one input, {features}. {received('lshape', lshape)}")
    return sizes


def _labels(targets: Tensor, nclass: int) -> Tensor:
    """Class numbers as int64 of shape (N,), checked."""
    labels = targets.flatten()
    if len(labels) != len(targets):
        raise ValueError(
            f"y must hold one class number for each sample where nclass is given. Received: y of shape "
            f"{tuple(targets.shape)}. Write make_onehot=False for targets of another kind."
        )
    wrong = (labels < 0) | (labels >= nclass) | (labels != labels.floor() if labels.is_floating_point() else False)
    if wrong.any():
        raise ValueError(
            f"y must hold whole numbers from 0 to nclass - 1 = {nclass - 1}. Received: "
            f"{shown(labels[wrong][0].item())} in y. Write make_onehot=False for targets of another kind."
        )
    return labels.long()
