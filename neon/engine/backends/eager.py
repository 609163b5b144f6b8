"""The eager backend: executes a kernel with torch operations, on any device that torch has.

It is the definition of every operation: other backends give the same bits, or say how far they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neon.engine.backends import has_float64
from neon.engine.program.formats.blocks import BLOCK
from neon.engine.program.graph import Node, walk
from neon.engine.program.kernel import CHUNK, LANES, ROWS, Kernel, Stage

if TYPE_CHECKING:
    from neon.engine.batch import Batch

_WORDS = {8: torch.int8, 16: torch.int16}
_WORD = 0xFFFFFFFF  # torch has no 32-bit unsigned arithmetic on every device: words are kept in int64


def _power_of_two(x: Tensor) -> Tensor:
    magnitude = x.abs()
    significand = 2 * torch.frexp(magnitude).mantissa
    power = torch.where(magnitude == 0, magnitude, magnitude / significand)
    # The smallest number of the format above √2: a comparison that no rounding of √2 can spoil.
    above = 1.4142135623730951 if x.dtype == torch.float64 else 1.41421366
    rounded = torch.where(significand >= above, 2 * power, power)
    return torch.where(magnitude.isfinite(), rounded, magnitude)


def _sqrt(x: Tensor) -> Tensor:
    # torch's square root on the CPU may come from a vector library that is not correctly rounded (with
    # MKL, 0.6 % of float32 results are one unit off); numpy's is the processor's own, as the kernels' is.
    if x.device.type != "cpu" or x.requires_grad:
        return torch.sqrt(x)
    with np.errstate(invalid="ignore"):
        return torch.from_numpy(np.asarray(np.sqrt(x.numpy())))


def _rounded_once(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A function that is not correctly rounded, of float32 by way of float64: so devices hardly ever differ."""

    def of_float32(*arguments: Tensor) -> Tensor:
        wide = arguments[0].dtype == torch.float64 or not has_float64(arguments[0].device)
        return function(*arguments) if wide else function(*(x.double() for x in arguments)).to(arguments[0].dtype)

    return of_float32


def _block_peak(bits: Tensor) -> Tensor:
    """For each element the largest word of its block, as the float32 of these bits."""
    blocks = torch.nn.functional.pad(bits, (0, -bits.numel() % BLOCK)).view(-1, BLOCK)
    return _of_blocks(blocks.amax(1), bits.numel()).to(torch.int32).view(torch.float32)


def _of_blocks(values: Tensor, n: int) -> Tensor:
    """For each element the value of its block."""
    return values.repeat_interleave(BLOCK)[:n]


TORCH: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "pow": _rounded_once(torch.pow),
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": lambda x: torch.where(x.isnan(), x, torch.sign(x)),
    "sqrt": _sqrt,
    "exp": _rounded_once(torch.exp),
    "log": _rounded_once(torch.log),
    "minimum": torch.minimum,
    "maximum": torch.maximum,
    "power_of_two": _power_of_two,
    "less": torch.lt,
    "less_equal": torch.le,
    "equal": torch.eq,
    "where": torch.where,
    "uint_add": lambda a, b: (a + b) & _WORD,
    "uint_mul": lambda a, b: (a * b) & _WORD,
    "uint_and": torch.bitwise_and,
    "uint_or": torch.bitwise_or,
    "uint_xor": torch.bitwise_xor,
    "uint_shl": lambda a, b: (a << b) & _WORD,
    "uint_shr": lambda a, b: a >> b,
    "uint_less": torch.lt,
    "uint_where": torch.where,
    "bits": lambda x: x.view(torch.int32).to(torch.int64) & _WORD,
    "from_bits": lambda x: x.to(torch.int32).view(torch.float32),
    "to_uint": lambda x: x.to(torch.int64) & _WORD,
    "block_peak": _block_peak,
}


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
                partials = _sum_of_squares(values[reduction.args[0]])
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
            values[node] = _block_peak(TORCH["bits"]((x.abs() if node.label == "signed" else x).contiguous()))
        elif node.args:
            values[node] = TORCH[node.op](*(values[a] for a in node.args))
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
            width = 8 * stored.itemsize
            return stored.view(_WORDS[width]).to(torch.int64) & ((1 << width) - 1)
        case "load_block":
            return _of_blocks(tensors[node.label], n)
        case "index":
            return (torch.arange(n, dtype=torch.int64, device=device) + batch.offset_of(position)) & _WORD
        case "index_high":
            return (
                torch.arange(n, dtype=torch.int64, device=device) // CHUNK * CHUNK + batch.offset_of(position)
            ) >> 32
        case "tensor_key":
            word: Any = batch.key_of(position)
        case _:
            word = batch.step_word(position)
    return torch.as_tensor(int(word), dtype=torch.int64, device=device)


def _store(target: Tensor, value: Tensor) -> None:
    if value.dtype == torch.int64:
        words = _WORDS[8 * target.itemsize]
        target.view(words).copy_(value.to(words))
    elif len(target) < len(value):
        target.copy_(value[::BLOCK])
    else:
        target.copy_(value)


def _sum_of_squares(x: Tensor) -> Tensor:
    """Σx² of each chunk in float64, in the order that every backend keeps: rows, blocks, then lanes pairwise."""
    x = (x if has_float64(x.device) else x.cpu()).to(torch.float64)
    chunks = -(-x.numel() // CHUNK)
    # Zeros that fill the last block, or the last chunk of several, change no sum.
    blocks = CHUNK // (ROWS * LANES) if chunks > 1 else max(1, -(-x.numel() // (ROWS * LANES)))
    squares = torch.zeros(chunks * blocks * ROWS * LANES, dtype=torch.float64, device=x.device)
    torch.mul(x, x, out=squares[: x.numel()])
    lanes = _in_order(_in_order(squares.view(chunks, blocks, ROWS, LANES)))
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


def prepare(kernel: Kernel) -> Eager:
    """The executable form of a kernel."""
    return Eager(kernel)
