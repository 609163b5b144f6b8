"""Minibatches of arrays that fit in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from neon.arguments import plain
from neon.messages import shown

__all__ = ["ArrayIterator"]


class ArrayIterator:
    """Iterates over (inputs, targets) minibatches of two arrays, one pass an epoch.

    `neon.models.Model` takes any iterable of such pairs, torch's DataLoader among them; this one
    slices whole minibatches, which is many times faster than collecting samples one by one.

    Args:
        X: inputs, samples first. Floating-point ones are held as float32.
        y: targets, as many. Integers (class numbers) are held as int64. Default None: the inputs
            themselves, as for an autoencoder.
        batch_size: samples in a minibatch, 1 or more; the last may be smaller. Default 128.
        shuffle: another order every epoch. Default True.
        seed: of the orders. The order of the k-th pass depends on seed and k alone.
        lshape: the shape of one input, such as (1, 8, 8) for images. Default None: as in X.

    >>> batches = ArrayIterator([[0.0], [1.0], [2.0]], [0, 1, 2], batch_size=2, shuffle=False)
    >>> [targets.tolist() for inputs, targets in batches]
    [[0, 1], [2]]
    """

    def __init__(
        self,
        X: ArrayLike | Tensor,  # noqa: N803 - the name that neon has
        y: ArrayLike | Tensor | None = None,
        batch_size: int = 128,
        shuffle: bool = True,
        seed: int = 0,
        lshape: Sequence[int] | None = None,
    ) -> None:
        batch_size = plain(batch_size)
        if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
            raise ValueError(f"ArrayIterator's batch_size must be an int, 1 or more. Received: {shown(batch_size)}")
        self.inputs = as_samples("X", X)
        self.targets = self.inputs if y is None else as_samples("y", y)
        if len(self.inputs) != len(self.targets):
            raise ValueError(
                f"ArrayIterator's X and y must hold as many samples. "
                f"Received: {len(self.inputs)} and {len(self.targets)}"
            )
        if lshape is not None:
            self.inputs = self.inputs.reshape(len(self.inputs), *lshape)
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.passes = 0

    def __len__(self) -> int:
        """The number of minibatches."""
        return -(-len(self.inputs) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self.next_order()
        for start in range(0, len(self.inputs), self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield self.inputs[chosen], self.targets[chosen]

    def next_order(self) -> Tensor:
        samples = len(self.inputs)
        if not self.shuffle:
            return torch.arange(samples, device="cpu")
        order = np.random.default_rng([self.seed, self.passes]).permutation(samples)
        self.passes += 1
        return torch.from_numpy(order)


def as_samples(argument: str, values: ArrayLike | Tensor) -> Tensor:
    tensor = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values), device="cpu")
    if tensor.ndim == 0 or len(tensor) == 0:
        raise ValueError(
            f"ArrayIterator's {argument} must hold samples in its first dimension. "
            f"Received: an array of shape {tuple(tensor.shape)}"
        )
    return tensor.float() if tensor.is_floating_point() else tensor.long()
