"""A batch: tensors that share a kernel, as the tables that one launch reads.

The table of addresses has a line per parameter (weight, gradient, states, random key, step), the
table of chunks a line per range of a parameter, the table of scalars a line per distinct set of
numbers: 500 parameter groups cost what one costs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neon.engine import random
from neon.engine.backends import prepare
from neon.engine.checks import check_gradient
from neon.engine.graph import Node, scalar
from neon.engine.kernel import CHUNK, Kernel, Stage
from neon.engine.layout import flat, is_dense, like_layout, same_layout
from neon.engine.scalars import HostProgram, Rows
from neon.engine.trace import Program


@dataclass(eq=False)
class Settings:
    """What the tensors of one group share: program, numbers (read anew at each step), rounding, norms.

    `scopes` names, for each norm that the gradients are clipped by, the set of tensors it is taken
    over: groups that give the same object share one norm.
    """

    program: Program
    values: Mapping[str, Any]
    scopes: tuple[Hashable, ...] = ()
    width: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        places = (name.rstrip("]").split("[") for name in self.program.numbers if name != "step")
        self._places = [(key, int(rest[0]) if rest else None) for key, *rest in places]

    def read(self) -> list[float]:
        """The numbers of the program but `step`, in its order."""
        values = self.values
        return [float(values[k] if i is None else values[k][i]) for k, i in self._places]


@dataclass(eq=False, slots=True)
class Item:
    """One parameter with what its update needs; `step` is a 0-dim tensor that counts its updates."""

    name: str
    param: Tensor
    states: list[Tensor]
    step: Tensor
    group: int
    index: int


_STEP = scalar("step")


class Pass:
    """What one stage of a batch reads and writes besides the tensors, at addresses that stay."""

    def __init__(self, batch: Batch, stage: Stage) -> None:
        real = np.float64 if batch.kernel.formats.compute == torch.float64 else np.float32
        self.host = HostProgram(stage.scalars)
        self.scalars = np.empty((len(batch.row_groups), len(stage.scalars)), real)
        self.partials = np.empty((len(batch.chunks), len(stage.reductions)))
        tables = (batch.chunks, batch.table, self.scalars, self.partials)
        # The chunk to take next, the number of chunks, and where the tables are.
        self.context = np.array([0, len(batch.chunks), *(t.ctypes.data for t in tables)], np.int64)
        self.address = self.context.ctypes.data


class Batch:
    """The tensors of one launch. `positions` are the places of its items in the plan."""

    def __init__(
        self, kernel: Kernel, items: Sequence[Item], positions: Sequence[int], settings: Sequence[Settings]
    ) -> None:
        self.kernel = kernel
        self.items = items
        self.positions = positions
        self._settings = settings
        self.device = items[0].param.device
        self.executable = prepare(kernel, self.device.type)
        self._random = kernel.random
        self._number_nodes = [scalar(name) for name in kernel.program.numbers if name != "step"]
        self.elements = sum(item.param.numel() for item in items)
        self._staged = [i for i, item in enumerate(items) if not _direct(item)]
        self._contiguous = [item.param.is_contiguous() for item in items]
        self._all_contiguous = all(self._contiguous)
        self._grads: Sequence[Tensor] = ()
        self._temporaries: dict[int, dict[str, Tensor]] = {}
        self._make_rows()
        self._make_tables()
        self.passes = [Pass(self, stage) for stage in kernel.stages]
        self.scopes = [[self._shares(reduction) for reduction in stage.reductions] for stage in kernel.stages]

    # -- made once ---------------------------------------------------------------------------------

    def _make_rows(self) -> None:
        """Tensors with the same group and step count share a row, unless each has a norm of its own."""
        alone = any(r.label == "tensor" for stage in self.kernel.stages for r in stage.reductions)
        keys = [(item.group, int(item.step), position if alone else -1) for position, item in enumerate(self.items)]
        rows = {key: row for row, key in enumerate(dict.fromkeys(keys))}
        self.row_of = [rows[key] for key in keys]
        self.row_groups = [group for group, _, _ in rows]
        self.first_of_row = [keys.index(key) for key in rows]
        self._row_positions = np.array([self.positions[position] for position in self.first_of_row])

    def _make_tables(self) -> None:
        counts = [-(-item.param.numel() // CHUNK) for item in self.items]
        chunks = [
            (position, start, min(CHUNK, item.param.numel() - start), self.row_of[position])
            for position, item in enumerate(self.items)
            for start in range(0, item.param.numel(), CHUNK)
        ]
        self.chunks = np.array(chunks, np.int64).reshape(-1, 4)
        ends = np.cumsum(counts)
        self._chunk_ranges = [slice(end - count, end) for end, count in zip(ends, counts, strict=True)]
        self.table = np.zeros((len(self.items), len(self.kernel.tensors) + 2), np.int64)
        for position, item in enumerate(self.items):
            addresses = [item.param.data_ptr(), 0, *(s.data_ptr() for s in item.states)]
            key = random.tensor_key(self._settings[item.group].seed, item.index)
            self.table[position, :-1] = (*addresses, key)
        self._grad_addresses = [0] * len(self.items)

    # -- at each step ------------------------------------------------------------------------------

    def bind(self, grads: Sequence[Tensor], steps: npt.NDArray[np.float32]) -> None:
        """Take this step's gradients and numbers, before anything is written."""
        self._grads = grads = [grads[p] for p in self.positions]
        addresses = list(map(Tensor.data_ptr, grads))
        self._temporaries = {}
        if 0 in addresses:
            for item, grad in zip(self.items, grads, strict=True):
                check_gradient(item, grad)
        negated = any(map(Tensor.is_neg, grads))
        ordinary = self._all_contiguous and not negated and all(map(Tensor.is_contiguous, grads))
        for position, contiguous in enumerate(() if ordinary else self._contiguous):
            grad = grads[position]
            if grad.is_neg() or not (
                grad.is_contiguous() if contiguous else same_layout(grad, self.items[position].param)
            ):
                copy = like_layout(self.items[position].param, grad)
                self._temporaries[position] = {"g": copy}
                addresses[position] = copy.data_ptr()
        if addresses != self._grad_addresses:
            self.table[:, 1] = addresses
            self._grad_addresses = addresses
        for position in self._staged:
            self._stage_in(position)
        self._row_steps = steps[self._row_positions].astype(np.float64) + 1
        if self._random:
            self.table[:, -1] = self._row_steps[self.row_of]
        self._numbers = self._read_numbers()

    def _stage_in(self, position: int) -> None:
        """Copies of tensors that are not one dense range of memory, or not all laid out alike."""
        item = self.items[position]
        names = ("w", "g", *self.kernel.program.states)
        tensors = (item.param, self._grads[position], *item.states)
        copies = {
            n: t.detach().clone(memory_format=torch.contiguous_format) for n, t in zip(names, tensors, strict=True)
        }
        self._temporaries[position] = copies
        self.table[position, : len(copies)] = [t.data_ptr() for t in copies.values()]
        self._grad_addresses[position] = 0

    def _read_numbers(self) -> dict[Node, Any]:
        read = {group: self._settings[group].read() for group in dict.fromkeys(self.row_groups)}
        if len(self.row_groups) == 1:  # scalars are quicker than arrays of one
            columns: Any = map(np.float64, read[self.row_groups[0]])
            step: Any = self._row_steps[0]
        else:
            columns, step = np.array([read[group] for group in self.row_groups], np.float64).T, self._row_steps
        return {**dict(zip(self._number_nodes, columns, strict=True)), _STEP: step}

    def run(self, level: int, sums: Mapping[Node, Rows]) -> None:
        """Launch one stage; `sums` are the results of earlier reductions, a value per row."""
        current = self.passes[level]
        current.host.evaluate({**self._numbers, **sums}, current.scalars)
        if self.elements:
            self.executable.run(self, level)

    def finish(self) -> None:
        """After the last stage: copies go back where they belong, gradients are let go."""
        names = self.kernel.program.states
        for position in self._staged:
            item, copies = self.items[position], self._temporaries[position]
            for name, tensor in zip(("w", *names), (item.param, *item.states), strict=True):
                tensor.detach().copy_(copies[name])
        self._grads, self._temporaries = (), {}

    # -- what backends and reductions ask ----------------------------------------------------------

    def chunks_of(self, position: int) -> slice:
        """The lines of the chunk table, and so of `partials`, that belong to a tensor."""
        return self._chunk_ranges[position]

    def _shares(self, reduction: Node) -> dict[Hashable, Any]:
        """For each sum that a reduction contributes to, the lines of the chunk table that belong to it."""
        chunks: dict[Hashable, list[int]] = {}
        for position, lines in enumerate(self._chunk_ranges):
            chunks.setdefault(self.scope_of(position, reduction), []).extend(range(lines.start, lines.stop))
        if len(chunks) == 1:
            return dict.fromkeys(chunks, slice(None))
        return {scope: np.array(lines, np.int64) for scope, lines in chunks.items()}

    def scope_of(self, position: int, reduction: Node) -> Hashable:
        """The sum that a tensor's share of a reduction belongs to."""
        item = self.items[position]
        if reduction.label == "tensor":
            return (id(item.param), reduction)
        return id(self._settings[item.group].scopes[int(reduction.label.split("[")[1][:-1])])

    def key_of(self, position: int) -> int:
        """The word that tells the random bits of a tensor apart."""
        return int(self.table[position, -2])

    def step_word(self, position: int) -> int:
        """The number of this update, counted from 1."""
        return int(self.table[position, -1]) & 0xFFFFFFFF

    def flat_tensors(self) -> Iterator[dict[str, Tensor]]:
        """Each tensor's memory, by name, as vectors in the order of addresses."""
        names = ("w", "g", *self.kernel.program.states)
        for position, (item, grad) in enumerate(zip(self.items, self._grads, strict=True)):
            tensors = dict(zip(names, (item.param, grad, *item.states), strict=True))
            tensors |= self._temporaries.get(position, {})
            yield {name: flat(tensor) for name, tensor in tensors.items()}


def _direct(item: Item) -> bool:
    """Whether the kernel can work on the parameter's and the states' own memory."""
    return is_dense(item.param) and all(same_layout(s, item.param) for s in item.states)
