"""The eager backend: executes a kernel with torch operations, on any device that torch has.

It is the definition of every operation: other backends give the same bits, or say how far they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from neon.engine.backends import eager_rows as rows
from neon.engine.backends.contract import Backend
from neon.engine.batch import Batch
from neon.engine.program.graph import SIZE, Node, walk
from neon.engine.program.kernel import CHUNK, LANES, ROWS, Kernel, Stage
from neon.engine.program.meanings import BLOCK, WORD, has_float64, of_blocks
from neon.engine.program.operations import OPERATIONS
from neon.engine.program.reductions import Kind, kind_of


class Eager:
    """Executes one kernel, tensor by tensor."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def run(self, batch: Batch, level: int) -> None:
        """One stage over every tensor of a batch; reductions go to the pass's partials."""
        stage = self.kernel.stages[level]
        narrow = bool(stage.narrow)
        for position, tensors in enumerate(batch.narrow_tensors() if narrow else batch.flat_tensors()):
            one = _Tensor(self.kernel, stage, batch, level, position, tensors)
            if not narrow:
                one.run()
            elif one.has_elements:
                one.run_narrow()


class _Tensor:
    """One stage over one tensor."""

    def __init__(
        self, kernel: Kernel, stage: Stage, batch: Batch, level: int, position: int, tensors: Mapping[str, Tensor]
    ) -> None:
        self._kernel, self._stage, self._tensors, self._position = kernel, stage, tensors, position
        self._compute, self._device = kernel.formats.compute, tensors["w"].device
        self._place = level
        self._batch, self._pass = batch, batch.passes[level]
        self._beside: Any = (batch.whole_of if stage.narrow else batch.beside)[position]  # None if nothing is by rows
        row = self._pass.scalars[batch.row_of[position]]
        self._numbers = {
            node: torch.as_tensor(row[column].item(), dtype=self._compute, device=self._device)
            for column, node in enumerate(stage.scalars)
        }

    @property
    def has_elements(self) -> bool:
        """Whether the whole tensor has any."""
        return self._beside.sides.elements > 0

    def run(self) -> None:
        """A pass over its elements."""
        given = {node: rows.flat(self._kept(node), self._beside.sides) for node in self._stage.given}
        n = self._tensors["w"].numel()
        found = self._values(self._stage.roots, given, (n,))
        values = {root: value.expand(n) for root, value in found.items()}
        for column, reduction in enumerate((*self._stage.reductions, *self._stage.seen)):
            partials = self._partials(kind_of(reduction), *(values[operand] for operand in reduction.args))
            self._pass.partials[self._batch.chunks_of(self._position), column] = partials.cpu().numpy()
        for reduction in self._stage.along:
            self._keep(reduction, [values[operand] for operand in reduction.args])
        # All values exist before the first is stored: a rule may swap its tensors. A load may be the tensor itself.
        stored = {n: values[r].clone() if r.op == "load" else values[r] for n, r in self._stage.stores.items()}
        for name, value in stored.items():
            _store(self._tensors[name], value)

    def run_narrow(self) -> None:
        """The loops over its rows, columns and matrices."""
        sides, known = self._beside.sides, {node: self._kept(node) for node in self._kernel.kept_before(self._place)}
        for loop in self._stage.narrow:
            shape = sides.shape(loop.of)
            values = self._values(loop.roots, known, shape)
            for node in loop.values:
                known[node] = values[node].expand(shape)
            for reduction in loop.reductions:
                kind = kind_of(reduction)
                terms = rows.terms_of(kind, [values[operand] for operand in reduction.args], shape)
                known[reduction] = rows.of_matrices(kind, terms).to(self._compute).view(sides.shape(reduction.space))
            stored = {name: values[root].expand(shape).reshape(-1).clone() for name, root in loop.stores.items()}
            for name, value in stored.items():
                _store(self._tensors[name], value)
        new = [node for loop in self._stage.narrow for node in (*loop.values, *loop.reductions)]
        for node, value in ((node, known[node]) for node in new):
            self._beside.tensors[self._kernel.name_of[node]].copy_(value.reshape(-1))

    def _kept(self, node: Node) -> Tensor:
        return rows.read(self._beside, self._kernel.name_of[node], node, self._compute)

    def _keep(self, reduction: Node, operands: Sequence[Tensor]) -> None:
        sides, kind = self._beside.sides, kind_of(reduction)
        shape = (sides.matrices, sides.rows, sides.columns)
        terms = rows.terms_of(kind, [operand.view(shape) for operand in operands], shape)
        kept = self._beside.tensors[self._kernel.name_of[reduction]]
        kept.copy_(rows.over(reduction.space, kind, terms, sides))

    def _partials(self, kind: Kind, *operands: Tensor) -> Tensor:
        if self._beside is None:
            return _reduced(kind, *operands)
        sides = self._beside.sides
        shape = (sides.matrices, sides.rows, sides.columns)
        return rows.of_chunks(kind, rows.terms_of(kind, [x.reshape(shape) for x in operands], shape), sides)

    def _values(self, roots: Sequence[Node], given: Mapping[Node, Tensor], shape: Sequence[int]) -> dict[Node, Tensor]:
        """The values of nodes, where there are so many of each, or fewer that are alike."""
        values = {**self._numbers, **given}
        for node in walk(roots, into_reductions=False, given=dict(values)):
            if node in values:
                continue
            if node.op == "block_peak":
                (x,) = (values[a].expand(shape) for a in node.args)
                words = OPERATIONS["bits"].torch((x.abs() if node.label == "signed" else x).contiguous())
                values[node] = OPERATIONS[node.op].torch(words)
            elif node.args:
                values[node] = OPERATIONS[node.op].torch(*(values[a] for a in node.args))
            elif node.op == SIZE:
                sides = self._beside.sides
                size = sides.rows if node.label == "rows" else sides.columns
                values[node] = torch.as_tensor(size, dtype=self._compute, device=self._device)
            elif node.space.is_narrow:
                of = self._beside.sides.shape(node.space)
                values[node] = self._leaf(node, math.prod(of)).reshape(-1)
                values[node] = values[node].view(of) if values[node].numel() > 1 or math.prod(of) == 1 else values[node]
            else:
                values[node] = self._leaf(node, math.prod(shape))
        return {root: values[root] for root in roots}

    def _leaf(self, node: Node, n: int) -> Tensor:
        return _leaf(node, self._tensors, n, self._compute, self._batch, self._position)


def _leaf(
    node: Node, tensors: Mapping[str, Tensor], n: int, compute: torch.dtype, batch: Batch, position: int
) -> Tensor:
    device = tensors["w"].device
    match node.op:
        case "const":
            dtype = torch.int64 if node.kind == "uint" else compute
            return torch.as_tensor(node.label, dtype=dtype, device=device)
        case "load":
            return tensors[node.label].to(compute)
        case "load_bits":
            stored = tensors[node.label]
            return stored.view(_words_of(stored)).to(torch.int64) & ((1 << 8 * stored.itemsize) - 1)
        case "load_block":
            return of_blocks(tensors[node.label], n)
        case "index":
            first = 0 if node.space.is_narrow else batch.offset_of(position)
            return (torch.arange(n, dtype=torch.int64, device=device) + first) & WORD
        case "index_high":
            by_rows = batch.beside[position]  # where an element's chunk, or its row, begins
            step = CHUNK if by_rows is None else by_rows.sides.columns
            return (torch.arange(n, dtype=torch.int64, device=device) // step * step + batch.offset_of(position)) >> 32
        case _:
            word = batch.key_of(position) if node.op == "tensor_key" else batch.step_word(position)
            return torch.as_tensor(word, dtype=torch.int64, device=device)


def _words_of(stored: Tensor) -> torch.dtype:
    """The type of raw words as wide as the elements of a tensor."""
    return getattr(torch, f"int{8 * stored.itemsize}")


def _store(target: Tensor, value: Tensor) -> None:
    if value.dtype == torch.int64:
        words = _words_of(target)
        target.view(words).copy_(value.to(words))
    elif len(target) < len(value):
        target.copy_(value[::BLOCK])
    else:
        target.copy_(value)


def _reduced(kind: Kind, *operands: Tensor) -> Tensor:
    """The sum of each chunk in float64, in the order that every backend keeps: rows, blocks, then lanes pairwise."""
    terms = kind.torch(*((x if has_float64(x.device) else x.cpu()).to(torch.float64) for x in operands))
    chunks = -(-terms.numel() // CHUNK)
    # Zeros that fill the last block, or the last chunk of several, change no sum.
    blocks = CHUNK // (ROWS * LANES) if chunks > 1 else max(1, -(-terms.numel() // (ROWS * LANES)))
    filled = torch.zeros(chunks * blocks * ROWS * LANES, dtype=torch.float64, device=terms.device)
    filled[: terms.numel()] = terms
    if kind.by_size:
        return filled.view(chunks, blocks * ROWS * LANES).amax(1)
    lanes = rows.in_order(rows.in_order(filled.view(chunks, blocks, ROWS, LANES)))
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


BACKEND = Backend("eager", Eager)
