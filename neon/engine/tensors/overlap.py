"""Memory: that nothing which a kernel writes is something else that it reads or writes."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from functools import reduce

import numpy as np
import numpy.typing as npt
from torch import Tensor

from neon.engine.settings import Item
from neon.engine.tensors.alike import Kind
from neon.engine.tensors.layout import is_dense, same_layout
from neon.messages import quoted

# So many sets of addresses, of the steps before, are known to share nothing.
_REMEMBERED = 8


def address(tensor: Tensor) -> int:
    """Where its memory is, 0 where it has none."""
    try:
        return tensor.data_ptr()
    except RuntimeError:  # under torch.func it stands for other tensors
        return 0


def sharing(tensors: Sequence[Tensor]) -> tuple[int, int] | None:
    """The places of two tensors that have an element in common, the one that begins later first; None without any."""
    return _Ranges(tensors, [*map(Kind.of, tensors)]).sharing(tensors)


class _Ranges:
    """The ranges of memory of tensors that have elements, in the order in which they begin; `places` says whose."""

    def __init__(self, tensors: Sequence[Tensor], kinds: Sequence[Kind]) -> None:
        starts = np.array([*map(Tensor.data_ptr, tensors)], np.int64)
        ends = starts + np.array([kind.bytes for kind in kinds], np.int64)
        order = np.lexsort((ends, starts))
        self.places = order[ends[order] != starts[order]]
        self.starts, self.ends = starts[self.places], ends[self.places]

    def sharing(self, tensors: Sequence[Tensor]) -> tuple[int, int] | None:
        """As the function; elements are looked at only where ranges overlap."""
        if (self.starts[1:] >= np.maximum.accumulate(self.ends)[:-1]).all():
            return None
        reaching: list[tuple[int, int]] = []  # ends and places of those before that may overlap the one at hand
        for start, end, place in zip(self.starts.tolist(), self.ends.tolist(), self.places.tolist(), strict=True):
            reaching = [earlier for earlier in reaching if earlier[0] > start]
            for _, earlier in reaching:
                if _share_elements(tensors[earlier], tensors[place]):
                    return place, earlier
            reaching.append((end, place))
        return None


class Written:
    """The ranges of memory that a plan writes: parameters and states, none of which may overlap."""

    def __init__(self, items: Sequence[Item]) -> None:
        tensors = [tensor for item in items for tensor in (item.param, *item.kept.values())]
        kinds = [kind for item in items for kind in item.form.kinds]
        ranges = _Ranges(tensors, kinds)
        if shared := ranges.sharing(tensors):
            names = [item.name for item in items for _ in item.form.kinds]
            later, earlier = (names[place] for place in shared)
            raise ValueError(
                f"Parameter {quoted(later)} or a state of it shares memory with parameter {quoted(earlier)} or a state "
                "of that; give each its own tensor."
            )
        self._apart: set[tuple[int, ...]] = set()
        # What is not dense is written last of all, from a copy: a gradient may lie between its elements.
        dense = np.array([kind.is_dense for kind in kinds], bool)[ranges.places]
        self.starts, self.ends = ranges.starts[dense], ranges.ends[dense]

    def check_gradients(self, items: Sequence[Item], grads: Sequence[Tensor], addresses: Sequence[int]) -> None:
        """Refuse gradients that share memory with what is written, but for a parameter that is its own gradient.

        A gradient that is laid out unlike its parameter is copied before anything is written.
        """
        key = tuple(addresses)
        if key in self._apart:  # allocators give the same places again
            return
        sizes = [grad.numel() * grad.element_size() for grad in grads]
        for place in self._touching(addresses, sizes):
            item, grad = items[place], grads[place]
            itself = grad.data_ptr() == item.param.data_ptr() and grad.dtype == item.param.dtype
            if grad.numel() and not itself and same_layout(grad, item.param):
                raise ValueError(
                    f"The gradient of parameter {quoted(item.name)} shares memory with a parameter or a state; give it "
                    "a tensor of its own."
                )
        if len(self._apart) == _REMEMBERED:
            self._apart.clear()
        self._apart.add(key)

    def forget(self) -> None:
        """Other gradients will come."""
        self._apart.clear()

    def _touching(self, addresses: Sequence[int], sizes: Sequence[int]) -> list[int]:
        """The places of the ranges of memory that touch what is written."""
        if len(addresses) == 1:  # as it is in a backward pass
            [start], [size] = addresses, sizes
            return [0] if bisect_right(self.ends, start) != bisect_left(self.starts, start + size) else []
        starts = np.array(addresses, np.int64)
        ends = starts + np.array(sizes, np.int64)
        return np.flatnonzero(self.ends.searchsorted(starts, "right") != self.starts.searchsorted(ends)).tolist()


def _share_elements(a: Tensor, b: Tensor) -> bool:
    """Whether tensors whose ranges overlap have an element in common: columns of one matrix have none."""
    if (is_dense(a) and is_dense(b)) or a.element_size() != b.element_size():
        return True
    return bool(np.intersect1d(_addresses(a), _addresses(b)).size)


def _addresses(tensor: Tensor) -> npt.NDArray[np.int64]:
    steps = [np.arange(size) * stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True)]
    return tensor.data_ptr() + tensor.element_size() * reduce(np.add.outer, steps, np.zeros((), np.int64)).ravel()
