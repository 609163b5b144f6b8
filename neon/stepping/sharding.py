"""Parameters of which every process holds a part: DTensors, and lists that are partitioned."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, distributed

from neon.engine.program.formats.blocks import BLOCK
from neon.engine.program.spaces import ELEMENT, TENSOR, Space
from neon.engine.settings import WHOLE, Part, Reach, Shard
from neon.messages import quoted


class Partition:
    """The default process group, over whose members parameters are partitioned: each is whole on one of them."""

    alike = False

    def gather(self, values: list[float]) -> list[list[float]]:
        """The values of every process."""
        return _gather([values], None)


class Mesh:
    """The processes that hold shards of a tensor: those along some dimensions of a device mesh."""

    alike = True

    def __init__(self, mesh: Any, dims: tuple[int, ...]) -> None:
        self._groups = [mesh.get_group(dim) for dim in dims]
        self.size = math.prod(mesh.size(dim) for dim in dims)

    def gather(self, values: list[float]) -> list[list[float]]:
        """The values of every process that holds a shard."""
        rows = [values]
        for group in self._groups:
            rows = _gather(rows, group)
        return rows

    def gather_tensors(self, values: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """The vectors of every process that holds a shard, of which the sizes are known."""
        padded = values.new_zeros(1, max(sizes))
        padded[0, : len(values)] = values
        for group in self._groups:
            parts = [torch.empty_like(padded) for _ in range(distributed.get_world_size(group))]
            if padded.numel():
                distributed.all_gather(parts, padded, group)
            padded = torch.cat(parts)
        return [row[:size] for row, size in zip(padded, sizes, strict=True)]


def _gather(rows: list[list[float]], group: Any) -> list[list[float]]:
    on_gpu = distributed.get_backend(group) == "nccl"
    own = torch.tensor(rows, dtype=torch.float64, device="cuda" if on_gpu else "cpu")
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size(group))]
    if own.numel():
        distributed.all_gather(parts, own, group)
    return [row for part in parts for row in part.tolist()]


def is_sharded(tensor: Any) -> bool:
    """Whether it is a DTensor. Their module is slow to import: nobody else should have to."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def is_shared(param: Any) -> bool:
    """Whether other processes hold parts of a parameter."""
    return is_sharded(param) and any(not placement.is_replicate() for placement in param.placements)


def is_abstract(param: Any) -> bool:
    """Whether a parameter has a shape and no values: on meta, or fake, as memory is estimated with."""
    fakes = sys.modules.get("torch._subclasses.fake_tensor")
    return param.device.type == "meta" or (fakes is not None and isinstance(local(param), fakes.FakeTensor))


def local(tensor: Any) -> Any:
    """The part of a tensor that this process holds."""
    with torch.no_grad():
        return tensor.to_local() if is_sharded(tensor) else tensor


def local_gradients(params: Sequence[Any], grads: Sequence[Any]) -> list[Tensor | None]:
    """The parts of gradients that belong to the parts of parameters."""
    found = []
    for param, grad in zip(params, grads, strict=True):
        if is_sharded(grad) and is_sharded(param) and grad.placements != param.placements:
            with torch.no_grad():
                found.append(local(grad.redistribute(param.device_mesh, param.placements)))
        else:
            found.append(local(grad))
    return found


def shard_of(param: Any) -> Shard:
    """Which part of a parameter this process holds: a range of its rows, or one of its numbered parts."""
    if not is_sharded(param):
        return WHOLE
    mesh, rows, first, by_rows, number = param.device_mesh, param.shape[0] if param.dim() else 1, 0, True, 0
    for dim, placement in enumerate(param.placements):
        if placement.is_replicate():
            continue
        size, rank = mesh.size(dim), mesh.get_local_rank(dim)
        by_rows = by_rows and type(placement).__name__ == "Shard" and placement.dim == 0
        number = number * size + rank
        share = -(-rows // size)  # as torch.chunk divides
        first += min(rows, rank * share)
        rows = max(0, min(share, rows - rank * share))
    if by_rows and local(param).is_contiguous():
        return Shard(offset=first * math.prod(param.shape[1:]))
    return Shard(number=number + 1)


def part_of(param: Any) -> Part | None:
    """Which elements of a parameter each process holds; None where this one has all."""
    if not is_shared(param) or any(placement.is_partial() for placement in param.placements):
        return None
    mesh = param.device_mesh
    dims = [dim for dim, placement in enumerate(param.placements) if not placement.is_replicate()]
    if any(type(param.placements[dim]).__name__ != "Shard" for dim in dims):
        return None
    boxes, own = [], 0
    # In the order in which a mesh gathers: the ranks along its first dimension change quickest.
    for number, ranks in enumerate(product(*(range(mesh.size(dim)) for dim in reversed(dims)))):
        box = [(0, side) for side in param.shape]
        for dim, rank in zip(dims, reversed(ranks), strict=True):
            cut = param.placements[dim].dim
            first, length = box[cut]
            share = -(-length // mesh.size(dim))  # as torch.chunk divides
            start = min(length, rank * share)
            box[cut] = (first + start, min(share, length - start))
        boxes.append(tuple(box))
        if all(mesh.get_local_rank(dim) == rank for dim, rank in zip(dims, reversed(ranks), strict=True)):
            own = number
    return Part(tuple(param.shape), tuple(boxes), own)


def sharded_like(param: Any, part: Tensor, space: Space = ELEMENT) -> Tensor:
    """What is kept of a parameter, with one number for each of a space, from this process's part of it."""
    if not is_sharded(param) or space is TENSOR:
        return part
    shape, stride, placements = param.shape, param.stride(), param.placements
    if space is not ELEMENT:
        shape = torch.Size(space.shape(shape))
        stride = torch.empty(shape, dtype=part.dtype, device="meta").stride()
    if space.is_narrow:  # where rows are cut, each process has what is known of all of a row
        whole = sys.modules["torch.distributed.tensor"].Replicate()
        lost = [param.dim() + dim for dim in space.lost]
        placements = [whole if getattr(p, "dim", None) in lost else p for p in placements]
    return type(param.data).from_local(part, param.device_mesh, placements, run_check=False, shape=shape, stride=stride)


def keeps_blocks(param: Any) -> bool:
    """Whether every block of a parameter's numbers lies on one process, and its scale at the same place."""
    if not is_sharded(param):
        return True
    cuts = [placement for placement in param.placements if not placement.is_replicate()]
    by_rows = all(type(cut).__name__ == "Shard" and cut.dim == 0 for cut in cuts)
    return not cuts or (by_rows and param.dim() > 1 and math.prod(param.shape[1:]) % BLOCK == 0)


class Reaches:
    """Which processes share the sums over a parameter; one object for those that share them alike."""

    def __init__(self, partition: Partition | None) -> None:
        self._partition = partition
        self._meshes: dict[Any, Mesh] = {}

    def of(self, name: str, param: Any) -> Reach | None:
        """None where this process holds all that there is."""
        if not is_sharded(param):
            return self._partition
        if any(placement.is_partial() for placement in param.placements):
            raise ValueError(
                f"Parameter {quoted(name)} is a DTensor of partial sums ({param.placements}): redistribute it to Shard "
                "or Replicate placements first."
            )
        dims = tuple(d for d, placement in enumerate(param.placements) if not placement.is_replicate())
        if not dims:
            return None
        key = (param.device_mesh, dims)
        if key not in self._meshes:
            self._meshes[key] = Mesh(*key)
        return self._meshes[key]
