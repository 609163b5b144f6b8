"""Sums of gradients taken as these arrive in the backward pass, while caches have them: the step reads them once less.

The same machine code sums the same chunks, so the bits are those of a step that sums itself. A step believes a sum only
of the very gradient that it was taken of, where it was, unchanged as far as autograd has been told.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neon.engine.program.kernel import CHUNK, Kernel
from neon.engine.settings import Item
from neon.engine.tensors.layout import is_dense, same_layout
from neon.messages import quoted

if TYPE_CHECKING:
    from neon.engine.batch import Batch

# Gradients of so many elements on are summed as they arrive: of smaller ones the hook costs more than it saves.
# benchmarks/norms_in_backward.py measures it.
LARGE = 262144

Table = npt.NDArray[np.int64]


class _Seen(weakref.ref[Tensor]):
    """A gradient as it was when it was summed. It is not kept, and nobody follows the reference.

    That it is alive shows in its callback, which is gone with it: another gradient in its place is told apart.
    """

    __slots__ = ("_address", "_number", "_version")

    def __new__(cls, grad: Tensor) -> _Seen:
        return super().__new__(cls, grad, _gone)

    def __init__(self, grad: Tensor) -> None:
        super().__init__(grad, _gone)
        self._number, self._version, self._address = id(grad), grad._version, grad.data_ptr()

    def is_still(self, grad: Tensor, address: int) -> bool:
        """Whether this is the gradient, read at this address, and nothing has been written to it since."""
        return (
            self.__callback__ is not None
            and id(grad) == self._number
            and address == self._address
            and grad._version == self._version
        )


def _gone(_: object) -> None:
    pass


class _Part:
    """Some chunks of a stage as a launch reads them, with partial sums of their own."""

    def __init__(self, chunks: Table, table: Table, columns: int) -> None:
        self.chunks, self._table = chunks, table
        self.partials = np.empty((len(chunks), columns))
        self.elements = int(chunks[:, 2].sum())
        addresses = (chunks.ctypes.data, table.ctypes.data, 0, self.partials.ctypes.data)  # no numbers are read
        self.context = np.array([0, len(chunks), *addresses], np.int64)
        self.address = self.context.ctypes.data


class _Sum(_Part):
    """The sums of one gradient, and when they were taken.

    Where gradients are accumulated over several backward passes, as many as in the last step are waited for.
    """

    def __init__(self, item: Item, kernel: Kernel, columns: int) -> None:
        size = item.param.numel()
        starts = np.arange(0, size, CHUNK)
        none = np.zeros_like(starts)
        self.line = np.zeros(kernel.width, np.int64)
        super().__init__(np.stack((none, starts, np.minimum(CHUNK, size - starts), none), 1), self.line, columns)
        self._dtype = kernel.formats.g
        self._passes, self._expected = 0, 1
        self.seen: _Seen | None = None

    def awaits(self, param: Tensor) -> Tensor | None:
        """The gradient that is to be summed, if this is the last one to come and the kernel can read it where it is."""
        self.seen = None
        self._passes += 1
        grad = param.grad
        readable = (
            type(grad) is Tensor
            and grad.layout is torch.strided
            and grad.dtype == self._dtype
            and grad.device == param.device
            and grad.numel() == self.elements
            and same_layout(grad, param)
            and is_dense(grad)
            and not (grad.is_neg() or grad.is_inference())
            and grad.data_ptr() != 0
        )
        return grad if readable and self._passes >= self._expected else None

    def close(self) -> None:
        """The step is made: what was summed is of no use to another."""
        self.seen, self._expected, self._passes = None, max(1, self._passes), 0


class EarlySums:
    """The sums of one batch's large gradients, with the launch of those that a step still has to take."""

    def __init__(self, kernel: Kernel, executable: Any, items: Collection[Item]) -> None:
        self._launch = executable.launch
        self._columns = len(kernel.stages[0].reductions)
        self._lock = threading.Lock()  # a backward pass may run in several threads
        self._sums = {id(item.param): _Sum(item, kernel, self._columns) for item in items}
        self.params = [item.param for item in items]
        self._steps = 0
        # Of the members that take part: the pass that they are in, the sums by places, what is left beside some of them.
        self._pass: Any = None
        self._placed: list[tuple[int, _Sum]] = []
        self._rests: dict[tuple[int, ...], tuple[npt.NDArray[np.intp], _Part]] = {}

    def arrived(self, param: Tensor) -> None:
        """Sum a gradient that has just arrived."""
        with self._lock:
            known = self._sums.get(id(param))
            grad = None if known is None else known.awaits(param)
            if known is None or grad is None:
                return
            seen = _Seen(grad)
            known.line[1] = grad.data_ptr()
            self._launch(known, 0)
            known.seen = seen

    def forget(self) -> None:
        """Believe nothing that was summed before now."""
        with self._lock:
            for known in self._sums.values():
                known.seen = None

    def run(self, batch: Batch, grads: Sequence[Tensor]) -> None:
        """The first stage of a step, over what is not summed yet."""
        current = batch.passes[0]
        with self._lock:
            if self._pass is not current:
                self._arrange(batch, current)
            addresses = batch.table[:, 1].tolist()
            believed = [
                place
                for place, known in self._placed
                if known.seen is not None and known.seen.is_still(grads[place], addresses[place])
            ]
            if believed and self._is_to_be_checked():
                self._launch(current, 0)
                self._check(batch, current, believed)
            elif believed:
                self._take(batch, current, believed)
            else:
                self._launch(current, 0)
            for _, known in self._placed:
                known.close()

    def _arrange(self, batch: Batch, current: Any) -> None:
        self._pass = current
        sums = (self._sums.get(id(item.param)) for item in batch.items)
        self._placed = [(place, known) for place, known in enumerate(sums) if known is not None]
        self._rests = {}

    def _take(self, batch: Batch, current: Any, believed: Sequence[int]) -> None:
        """Sum the others, and put all sums where the step looks for them."""
        lines, rest = self._rest(batch, tuple(believed))
        if len(lines):
            self._launch(rest, 0)
            current.partials[lines] = rest.partials
        placed = dict(self._placed)
        for place in believed:
            current.partials[batch.chunks_of(place)] = placed[place].partials

    def _rest(self, batch: Batch, believed: tuple[int, ...]) -> tuple[npt.NDArray[np.intp], _Part]:
        if believed not in self._rests:
            lines = np.flatnonzero(~np.isin(batch.chunks[:, 0], believed))
            part = _Part(np.ascontiguousarray(batch.chunks[lines]), batch.table, self._columns)
            self._rests = {believed: (lines, part)}
        return self._rests[believed]

    def _is_to_be_checked(self) -> bool:
        """Whether this is the first, second, fourth, eighth ... step that would believe something."""
        self._steps += 1
        return self._steps & (self._steps - 1) == 0

    def _check(self, batch: Batch, current: Any, believed: Sequence[int]) -> None:
        """Have done with early sums where a gradient is another one than it was and autograd was not told."""
        placed = dict(self._placed)
        for place in believed:
            if current.partials[batch.chunks_of(place)].tobytes() != placed[place].partials.tobytes():
                self._sums, self._placed = {}, []
                warnings.warn(
                    f"The gradient of parameter {quoted(batch.items[place].name)} was changed after it had arrived, "
                    "and autograd was not told, as through .data or numpy: with norms_in_backward=True it would be "
                    "clipped by a norm that it does not have. Its norm is taken in the step from now on. Change "
                    "gradients under torch.no_grad() instead, or leave norms_in_backward out.",
                    RuntimeWarning,
                    stacklevel=2,
                )
                return


def early_sums(kernel: Kernel, executable: Any, items: Sequence[Item]) -> EarlySums | None:
    """What sums large gradients as they arrive, where the first stage of a kernel sums gradients and nothing else."""
    stage = kernel.stages[0]
    alone = (
        kernel.reducing.get(0) == 0
        and not (kernel.by_rows or stage.scalars or stage.stores or stage.random)
        and {load.label for load in stage.loads} == {"g"}
    )
    large = [item for item in items if item.param.numel() >= LARGE and item.param.is_leaf and item.param.requires_grad]
    return EarlySums(kernel, executable, large) if alone and large and hasattr(executable, "launch") else None
