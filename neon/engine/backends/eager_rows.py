"""The eager backend's passes over the rows and columns of a tensor: the definition of their order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from neon.engine.beside import Beside, combined, is_sum
from neon.engine.program.graph import Node
from neon.engine.program.kernel import LANES, ROWS
from neon.engine.program.meanings import has_float64
from neon.engine.program.reductions import Kind, kind_of
from neon.engine.program.spaces import COLUMNS, Space
from neon.engine.tensors.sides import Sides


def read(beside: Beside, name: str, node: Node, compute: torch.dtype) -> Tensor:
    """What is kept beside a tensor, as (matrices, rows, columns): of sums in chunks, what they come to."""
    sides, kept = beside.sides, beside.tensors[name]
    if is_sum(node) and node.space is COLUMNS:
        kept = combined(kept, sides, by_size=kind_of(node).by_size)
    return kept.view(sides.shape(node.space)).to(compute)


def flat(values: Tensor, sides: Sides) -> Tensor:
    """Values for rows, columns or matrices, one for each element."""
    return values.expand(sides.matrices, sides.rows, sides.columns).reshape(-1)


def terms_of(kind: Kind, operands: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    """The terms of a reduction as (matrices, rows, columns), in float64."""
    wide = (x if has_float64(x.device) else x.cpu() for x in operands)
    return kind.torch(*(x.to(torch.float64).expand(shape) for x in wide))


def of_chunks(kind: Kind, terms: Tensor, sides: Sides) -> Tensor:
    """One number for each chunk: of its rows every 32nd, these one after another, then the lanes pairwise."""
    found = []
    lanes = _lanes(kind, terms)
    for start, count in sides.chunks().tolist():
        rows = lanes.reshape(-1, LANES)[start // sides.columns : (start + count) // sides.columns]
        filled = rows.new_zeros(-(-len(rows) // ROWS) * ROWS, LANES)
        filled[: len(rows)] = rows
        blocks = filled.view(-1, ROWS * LANES)
        found.append(rows.amax() if kind.by_size else _pairwise(in_order(in_order(blocks).view(ROWS, LANES)))[0])
    return torch.stack(found) if found else terms.new_empty(0)


def over(space: Space, kind: Kind, terms: Tensor, sides: Sides) -> Tensor:
    """What a pass over elements keeps: a number for each row, and for each column in each chunk."""
    if space is not COLUMNS:
        return _of_lanes(kind, _lanes(kind, terms)).reshape(-1)
    parts = terms.split(sides.height, 1) if sides.parts > 1 else [terms]
    return torch.stack([part.amax(1) if kind.by_size else in_order(part) for part in parts], 1).reshape(-1)


def of_matrices(kind: Kind, terms: Tensor) -> Tensor:
    """One number for each matrix, of one for each of its rows or columns."""
    lanes = _lanes(kind, terms.reshape(len(terms), 1, terms.shape[1] * terms.shape[2]))
    return _of_lanes(kind, lanes).reshape(-1)


def _lanes(kind: Kind, terms: Tensor) -> Tensor:
    """The sums of each row in lanes, of which an element goes to that of its column."""
    matrices, rows, columns = terms.shape
    blocks = max(1, -(-columns // LANES))
    filled = terms.new_zeros(matrices, rows, blocks * LANES)
    filled[:, :, :columns] = terms
    filled = filled.view(matrices, rows, blocks, LANES)
    return filled.amax(2) if kind.by_size else in_order(filled)


def _of_lanes(kind: Kind, lanes: Tensor) -> Tensor:
    return lanes.amax(-1) if kind.by_size else _pairwise(lanes)[..., 0]


def _pairwise(lanes: Tensor) -> Tensor:
    """The second half added to the first until one is left."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes


def in_order(x: Tensor) -> Tensor:
    """The sum over the dimension before the last, from its first element to its last."""
    if not x.shape[-2]:
        return x.sum(-2)
    first, *others = x.unbind(-2)
    total = first.clone()
    for other in others:
        total += other
    return total + 0.0  # as if from 0.0 on, which makes no negative zero
