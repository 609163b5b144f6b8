"""Sums of gradients taken as these arrive in the backward pass, while caches have them: the step reads them once less.

The same machine code sums the same chunks, so the bits are those of a step that sums itself. A step believes a sum only
of the very gradient that it was taken of, where it was, unchanged as far as autograd has been told.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neon.engine import versions
from neon.engine.batch import Batch
from neon.engine.program.kernel import CHUNK, Kernel
from neon.engine.settings import Item
from neon.engine.tensors.layout import is_dense
from neon.messages import quoted

# Gradients of so many elements are summed as they arrive: of smaller ones the hook costs more than it saves, and of
# larger ones no cache has much when they are there. benchmarks/norms_in_backward.py measures it.
LARGE, LARGEST = 524288, 8388608
# In each of so many steps all gradients are summed anew, besides the first ones: a fifth of a percent of a step.
CHECKED = 64

Table = npt.NDArray[np.int64]


def _gone(_: object) -> None:
    """What weak references call: that it is there says that the gradient is, and nobody follows the reference."""


def _is_unknown(_: object) -> bool:
    """Nothing is like what is not known yet."""
    return False


class _Part:
    """Some chunks of a stage as a launch reads them, with partial sums of their own."""

    def __init__(self, chunks: Table, table: Table, columns: int) -> None:
        self.chunks, self._table = chunks, table
        self.partials = np.empty((len(chunks), columns))
        self.elements = int(chunks[:, 2].sum())
        addresses = (chunks.ctypes.data, table.ctypes.data, 0, self.partials.ctypes.data)  # no numbers are read
        self.context = np.array([0, len(chunks), *addresses], np.int64)
        self.address = self.context.ctypes.data


class Sum(_Part):
    """The sums of one gradient, and of which, and when, they were taken.

    What is called as a gradient arrives finds all caches full of other things: each object that it touches counts.
    Where gradients are accumulated over several backward passes, as many as before the last step are waited for.
    """

    def __init__(self, item: Item, kernel: Kernel, executable: Any, lock: threading.Lock) -> None:
        size = item.param.numel()
        starts = np.arange(0, size, CHUNK)
        none = np.zeros_like(starts)
        line = np.zeros(kernel.width, np.int64)
        chunks = np.stack((none, starts, np.minimum(CHUNK, size - starts), none), 1)
        super().__init__(chunks, line, len(kernel.stages[0].reductions))
        self.param, self.lock = item.param, lock
        self._dtype, self._launch, self._line = kernel.formats.g, executable.launch, line.data
        self._is_like: Callable[[Tensor], bool] = _is_unknown  # the gradients that were found readable
        self._passes, self._expected = 0, 1
        # A weak reference to the gradient that was summed, its identity, its version, and where it was.
        self._seen: tuple[weakref.ref[Tensor], int, int, int] | None = None

    def arrived(self, param: Tensor) -> None:
        """Sum the gradient of the parameter, which has just arrived."""
        with self.lock:
            self._seen = None
            self._passes += 1
            grad = param.grad
            if grad is None or self._passes < self._expected or not (self._is_like(grad) or self._is_readable(grad)):
                return
            if address := grad.data_ptr():
                version = grad._version
                self._line[1] = address
                self._launch(self, 0)
                self._seen = weakref.ref(grad, _gone), id(grad), version, address

    def _is_readable(self, grad: Tensor) -> bool:
        """Whether the kernel can read a gradient where it is: the step asks what else there is to ask of it."""
        readable = (
            type(grad) is Tensor
            and grad.layout is torch.strided
            and grad.dtype == self._dtype
            and grad.device == self.param.device
            and grad.numel() == self.elements
            and is_dense(grad)
            and not grad.is_inference()
        )
        guards = versions.guards([grad]) if readable else None
        self._is_like = _is_unknown if guards is None else guards.check
        return readable

    def is_of(self, grad: Tensor, address: int) -> bool:
        """Whether this gradient, read at this address, is the one that was summed, and unchanged."""
        if self._seen is None:
            return False
        seen, number, version, before = self._seen
        same = seen.__callback__ is not None and id(grad) == number  # a dead one's number may be another's
        return same and address == before and grad._version == version

    def forget(self) -> None:
        """Believe nothing that was summed before now."""
        self._seen = None

    def close(self) -> None:
        """The step is made: what was summed is of no use to another."""
        self._seen, self._expected, self._passes = None, max(1, self._passes), 0


class EarlySums:
    """The sums of one batch's large gradients, with the launch of those that a step still has to take."""

    def __init__(self, kernel: Kernel, executable: Any, items: Collection[Item]) -> None:
        self._launch = executable.launch
        self._columns = len(kernel.stages[0].reductions)
        self._lock = threading.Lock()  # a backward pass may run in several threads
        self.sums = [Sum(item, kernel, executable, self._lock) for item in items]
        self._steps = 0
        # Of the members that take part: the pass that they are in, sums by their places, what is left beside some.
        self._pass: Any = None
        self._placed: dict[int, Sum] = {}
        self._rests: dict[tuple[int, ...], tuple[npt.NDArray[np.intp], _Part]] = {}

    def forget(self) -> None:
        """Believe nothing that was summed before now."""
        with self._lock:
            for known in self.sums:
                known.forget()

    def run(self, batch: Batch, grads: Sequence[Tensor]) -> None:
        """The first stage of a step, over what is not summed yet."""
        current = batch.passes[0]
        with self._lock:
            if self._pass is not current:
                self._arrange(batch, current)
            addresses = batch.table[:, 1].tolist()
            believed = [place for place, known in self._placed.items() if known.is_of(grads[place], addresses[place])]
            if not believed:
                self._launch(current, 0)
            elif self._is_to_be_checked():
                self._launch(current, 0)
                self._check(batch, current, believed)
            else:
                self._take(batch, current, believed)
            for known in self._placed.values():
                known.close()

    def _arrange(self, batch: Batch, current: Any) -> None:
        known = {id(each.param): each for each in self.sums}
        self._placed = {p: known[id(item.param)] for p, item in enumerate(batch.items) if id(item.param) in known}
        self._pass, self._rests = current, {}

    def _take(self, batch: Batch, current: Any, believed: Sequence[int]) -> None:
        """Sum the others, and put all sums where the step looks for them."""
        lines, rest = self._rest(batch, tuple(believed))
        if len(lines):
            self._launch(rest, 0)
            current.partials[lines] = rest.partials
        for place in believed:
            current.partials[batch.chunks_of(place)] = self._placed[place].partials

    def _rest(self, batch: Batch, believed: tuple[int, ...]) -> tuple[npt.NDArray[np.intp], _Part]:
        """The lines of what is left of a batch, and the launch over it."""
        if believed not in self._rests:
            lines = np.flatnonzero(~np.isin(batch.chunks[:, 0], believed))
            part = _Part(np.ascontiguousarray(batch.chunks[lines]), batch.table, self._columns)
            self._rests = {believed: (lines, part)}
        return self._rests[believed]

    def _is_to_be_checked(self) -> bool:
        """Whether this is the first, second, fourth, eighth ... step that would believe something, or one of many."""
        self._steps += 1
        return self._steps & (self._steps - 1) == 0 or self._steps % CHECKED == 0

    def _check(self, batch: Batch, current: Any, believed: Sequence[int]) -> None:
        """Have done with early sums where a gradient is another one than it was and autograd was not told."""
        for place in believed:
            if current.partials[batch.chunks_of(place)].tobytes() != self._placed[place].partials.tobytes():
                self.sums.clear()  # what hooks call goes with them
                self._placed = {}
                warnings.warn(
                    f"The gradient of parameter {quoted(batch.items[place].name)} was changed after it had arrived, "
                    "and autograd was not told, as through .data or numpy: with norms_in_backward=True it would be "
                    "clipped by a norm that it does not have. Its norm is taken in the step from now on. Change "
                    "gradients under torch.no_grad() instead, or leave norms_in_backward out.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return


def early_sums(batch: Batch) -> EarlySums | None:
    """What sums large gradients as they arrive, where the first stage of a batch sums gradients and nothing else."""
    kernel, executable = batch.kernel, batch.executable
    stage = kernel.stages[0]
    alone = (
        kernel.reducing.get(0) == 0
        and not (kernel.by_rows or stage.scalars or stage.stores or stage.random)
        and {load.label for load in stage.loads} == {"g"}
    )
    if not alone or not hasattr(executable, "launch"):
        return None
    params = ((item, item.param) for item in batch.direct_members())
    large = [item for item, p in params if LARGE <= p.numel() <= LARGEST and p.is_leaf and p.requires_grad]
    return EarlySums(kernel, executable, large) if large else None
