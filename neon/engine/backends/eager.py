"""The eager backend: executes a kernel with torch operations, on any device that torch has.

It is the definition of every operation: other backends give the same bits, or say how far they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from neon.engine.backends.contract import Backend
from neon.engine.batch import Batch
from neon.engine.program.graph import Node, walk
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
        for position, tensors in enumerate(batch.flat_tensors()):
            row = batch.passes[level].scalars[batch.row_of[position]]
            values = _execute(self.kernel, stage, row, tensors, batch, position)
            for column, reduction in enumerate(stage.reductions):
                partials = _reduced(kind_of(reduction), *(values[operand] for operand in reduction.args))
                batch.passes[level].partials[batch.chunks_of(position), column] = partials.cpu().numpy()
            # All values exist before the first is stored: a rule may swap its tensors. A load may be the tensor itself.
            stored = {n: values[r].clone() if r.op == "load" else values[r] for n, r in stage.stores.items()}
            for name, value in stored.items():
                _store(tensors[name], value)


def _execute(
    kernel: Kernel, stage: Stage, row: npt.NDArray[Any], tensors: Mapping[str, Tensor], batch: Batch, position: int
) -> dict[Node, Tensor]:
    weight, compute = tensors["w"], kernel.formats.compute
    n, device = weight.numel(), weight.device
    values = {
        node: torch.as_tensor(row[column].item(), dtype=compute, device=device)
        for column, node in enumerate(stage.scalars)
    }
    for node in walk(stage.roots, into_reductions=False, given=dict(values)):
        if node in values:
            continue
        if node.op == "block_peak":
            (x,) = (values[a].expand(n) for a in node.args)
            words = OPERATIONS["bits"].torch((x.abs() if node.label == "signed" else x).contiguous())
            values[node] = OPERATIONS[node.op].torch(words)
        elif node.args:
            values[node] = OPERATIONS[node.op].torch(*(values[a] for a in node.args))
        else:
            values[node] = _leaf(node, tensors, n, compute, batch, position)
    return {root: values[root].expand(n) for root in stage.roots}


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
            return (torch.arange(n, dtype=torch.int64, device=device) + batch.offset_of(position)) & WORD
        case "index_high":
            return (
                torch.arange(n, dtype=torch.int64, device=device) // CHUNK * CHUNK + batch.offset_of(position)
            ) >> 32
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
    lanes = _in_order(_in_order(filled.view(chunks, blocks, ROWS, LANES)))
    while lanes.shape[1] > 1:
        half = lanes.shape[1] // 2
        lanes = lanes[:, :half] + lanes[:, half:]
    return lanes[:, 0]


def _in_order(x: Tensor) -> Tensor:
    """The sum over the dimension before the last, from its first element to its last."""
    first, *others = x.unbind(-2)
    total = first.clone()
    for other in others:
        total += other
    return total


BACKEND = Backend("eager", Eager)
