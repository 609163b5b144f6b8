"""Memory: that nothing which a kernel writes is something else that it reads or writes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from torch import Tensor

from neon.engine.layout import is_dense, same_layout
from neon.engine.settings import Item

# So many sets of addresses, of the steps before, are known to share nothing.
_REMEMBERED = 8


def address(tensor: Tensor) -> int:
    """Where its memory is, 0 where it has none."""
    try:
        return tensor.data_ptr()
    except RuntimeError:  # under torch.func it stands for other tensors
        return 0


def overlaps_itself(tensor: Tensor) -> bool:
    """Whether elements share memory: a stride does not reach beyond what the smaller ones cover."""
    covered = 1
    for stride, size in sorted((st, si) for st, si in zip(tensor.stride(), tensor.shape, strict=True) if si > 1):
        if stride < covered:
            return True
        covered += stride * (size - 1)
    return False


class Written:
    """The ranges of memory that a plan writes: parameters and states, none of which may overlap."""

    def __init__(self, items: Sequence[Item]) -> None:
        # Only dense tensors fill their range: columns of one matrix are apart, though their ranges are not.
        spans = sorted(
            (tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size(), place)
            for place, item in enumerate(items)
            for tensor in (item.param, *item.states)
            if tensor.numel() and is_dense(tensor)
        )
        for (_, end, one), (start, _, other) in pairwise(spans):
            if start < end:
                raise ValueError(
                    f"Parameter {items[other].name!r} or a state of it shares memory with parameter "
                    f"{items[one].name!r} or a state of that; give each its own tensor."
                )
        self._apart: set[tuple[int, ...]] = set()
        table = np.array(spans, np.int64).reshape(-1, 3)
        self._starts, self._ends = np.ascontiguousarray(table[:, 0]), np.ascontiguousarray(table[:, 1])

    def check_gradients(self, items: Sequence[Item], grads: Sequence[Tensor], addresses: Sequence[int]) -> None:
        """Refuse gradients that share memory with what is written, but for a parameter that is its own gradient.

        A gradient that is laid out unlike its parameter is copied before anything is written.
        """
        key = tuple(addresses)
        if key in self._apart:  # allocators give the same places again
            return
        starts = np.array(addresses, np.int64)
        sizes = np.array([grad.numel() * grad.element_size() for grad in grads], np.int64)
        for place in np.flatnonzero(self._touched(starts, starts + sizes)).tolist():
            item, grad = items[place], grads[place]
            itself = grad.data_ptr() == item.param.data_ptr() and grad.dtype == item.param.dtype
            if grad.numel() and not itself and same_layout(grad, item.param):
                raise ValueError(
                    f"The gradient of parameter {item.name!r} shares memory with a parameter or a state; give it a "
                    "tensor of its own."
                )
        if len(self._apart) == _REMEMBERED:
            self._apart.clear()
        self._apart.add(key)

    def forget(self) -> None:
        """Other gradients will come."""
        self._apart.clear()

    def _touched(self, starts: npt.ArrayLike, ends: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        return self._ends.searchsorted(starts, "right") != self._starts.searchsorted(ends)
