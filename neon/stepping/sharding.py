"""Parameters of which every process holds a part: DTensors, and lists that are partitioned."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, distributed

from neon.engine.program.formats.blocks import BLOCK
from neon.engine.program.spaces import ELEMENT, PAIRS, TENSOR, Space
from neon.engine.settings import WHOLE, Part, Reach, Shard
from neon.engine.tensors.weight_matrices import Matrices, shape_of
from neon.messages import quoted


class Partition:
    """The default process group, over whose members parameters are partitioned: each is whole on one of them."""

    alike = False

    def gather(self, values: list[float]) -> list[list[float]]:
        """The values of every process."""
        return _gather([values], None)


class Mesh:
    """The processes that hold shards of a tensor: those along some dimensions of a device mesh.

    They are numbered in the order in which they gather: along the first of the dimensions numbers change quickest.
    """

    alike = True

    def __init__(self, mesh: Any, dims: tuple[int, ...]) -> None:
        self._groups = [mesh.get_group(dim) for dim in dims]
        self._sizes = [mesh.size(dim) for dim in dims]
        self.size = math.prod(self._sizes)
        self.own = 0
        for dim, size in zip(reversed(dims), reversed(self._sizes), strict=True):
            self.own = self.own * size + mesh.get_local_rank(dim)
        places = [slice(None) if dim in dims else mesh.get_local_rank(dim) for dim in range(mesh.ndim)]
        self._back = [*reversed(range(len(dims)))]
        self._ranks: list[int] = mesh.mesh[tuple(places)].permute(self._back).flatten().tolist()

    def gather(self, values: list[float]) -> list[list[float]]:
        """The values of every process that holds a shard."""
        rows = [values]
        for group in self._groups:
            rows = _gather(rows, group)
        return rows

    def agree(self, flags: list[float]) -> list[list[float]]:
        """The same of what hosts know: no device is waited for."""
        rows = [flags]
        for group in self._groups:
            rows = _gather(rows, _host_group(group))
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

    def cut(self, length: int) -> Sequence[tuple[int, int]]:
        """What each has of a dimension that is cut along the dimensions of the mesh, one after the other."""
        parts = [(0, length)]
        for size in self._sizes:
            parts = [_chunk(first, rows, size, place) for first, rows in parts for place in range(size)]
        # The first dimension changes slowest here, and quickest among the numbers of processes.
        return [parts[place] for place in torch.arange(self.size).view(self._sizes).permute(self._back).flatten()]

    def exchange(self, sent: Tensor, counts: Sequence[int], taken: Tensor, counts_taken: Sequence[int]) -> None:
        """Send each process that holds a shard its part of a vector, and take what it has for this one."""
        group, order = self._groups[0], [*range(self.size)]
        if len(self._groups) > 1:  # a group of its own, whose members go by their ranks
            group = _group_of(tuple(self._ranks))
            order = sorted(order, key=self._ranks.__getitem__)
        if order == sorted(order):
            distributed.all_to_all_single(taken, sent, [*counts_taken], [*counts], group)
            return
        parts, places = sent.split([*counts]), taken.split([*counts_taken])
        found = torch.empty_like(taken)
        sizes = [counts_taken[process] for process in order], [counts[process] for process in order]
        distributed.all_to_all_single(found, torch.cat([parts[process] for process in order]), *sizes, group)
        for process, values in zip(order, found.split(sizes[0]), strict=True):
            places[process].copy_(values)

    def spread(self, parts: Sequence[Tensor]) -> None:
        """Nobody has the whole of a tensor of which there are shards."""
        raise NotImplementedError


def _chunk(first: int, length: int, count: int, place: int) -> tuple[int, int]:
    """Where one of so many parts begins, and its length, as torch.chunk divides."""
    share = -(-length // count)
    start = min(length, place * share)
    return first + start, min(share, length - start)


class Replicas:
    """The default process group, each of whose members has all of every parameter, and the same gradients."""

    alike = True

    @property
    def size(self) -> int:
        """How many members there are."""
        return distributed.get_world_size()

    @property
    def own(self) -> int:
        """The number of this process."""
        return distributed.get_rank()

    def shares(self, param: Any) -> bool:
        """Whether each member has the whole of a parameter."""
        return not is_sharded(param) or (not is_shared(param) and param.device_mesh.size() == self.size)

    def gather(self, values: list[float]) -> list[list[float]]:
        """The values of every process."""
        return _gather([values], None)

    def agree(self, flags: list[float]) -> list[list[float]]:
        """The same of what hosts know: no device is waited for."""
        return _gather([flags], _host_group(distributed.group.WORLD))

    def gather_tensors(self, values: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """The vectors of every process, of which the sizes are known."""
        parts = [values if process == self.own else values.new_empty(size) for process, size in enumerate(sizes)]
        self.spread(parts)
        return parts

    def cut(self, length: int) -> Sequence[tuple[int, int]]:
        """Each has all of it."""
        return [(0, length)] * self.size

    def exchange(self, sent: Tensor, counts: Sequence[int], taken: Tensor, counts_taken: Sequence[int]) -> None:
        """Send each process its part of a vector, and take what it has for this one."""
        distributed.all_to_all_single(taken, sent, [*counts_taken], [*counts])

    def spread(self, parts: Sequence[Tensor]) -> None:
        """Have each process know the part of every one; here that of this process is filled."""
        sent = [distributed.broadcast(part, rank, async_op=True) for rank, part in enumerate(parts) if part.numel()]
        for work in sent:
            if work is not None:
                work.wait()


def replicas() -> Replicas:
    """The default process group, refused where there is none."""
    if not distributed.is_available() or not distributed.is_initialized():
        raise ValueError(
            "share_matrices=True shares out the work on matrices over the default process group, and there is none. "
            "Call torch.distributed.init_process_group before, or leave it out."
        )
    return Replicas()


# Process groups made for exchanges, for as long as the default group is there.
_groups: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()


def _group_of(ranks: tuple[int, ...], backend: str | None = None) -> Any:
    """The process group of these ranks, all of which ask for it, of the default group's backend unless it is said."""
    made = _groups.setdefault(distributed.group.WORLD, {})
    if (ranks, backend) not in made:
        made[ranks, backend] = distributed.new_group([*ranks], backend=backend, use_local_synchronization=True)
    return made[ranks, backend]


def _by_host(group: Any) -> bool:
    """Whether the members of a group have a way to each other that goes past their devices."""
    return "cpu:" in distributed.get_backend_config(group)


def _host_group(group: Any) -> Any:
    """The members of a group, with a way to each other that goes past their devices."""
    return group if _by_host(group) else _group_of(tuple(distributed.get_process_group_ranks(group)), "gloo")


def _gather(rows: list[list[float]], group: Any) -> list[list[float]]:
    """The rows of all members of a group, which the host waits for."""
    by_host = _by_host(group)
    own = torch.tensor(rows, dtype=torch.float64, device="cpu" if by_host else "cuda")
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size(group))]
    if own.numel():
        distributed.all_gather(parts, own, group)
    return [row for part in parts for row in part.tolist()]


_SHARDED = "torch.distributed.tensor"


def can_be_sharded() -> bool:
    """Whether there can be DTensors. Their module is slow to import: nobody else should have to."""
    return _SHARDED in sys.modules


def is_sharded(tensor: Any) -> bool:
    """Whether it is a DTensor."""
    module = sys.modules.get(_SHARDED)
    return module is not None and isinstance(tensor, module.DTensor)


def is_shared(param: Any) -> bool:
    """Whether other processes hold parts of a parameter."""
    return is_sharded(param) and any(not placement.is_replicate() for placement in param.placements)


def is_abstract(param: Any) -> bool:
    """Whether a parameter has a shape and no values: on meta, or fake, as memory is estimated with."""
    fakes = sys.modules.get("torch._subclasses.fake_tensor")
    return param.device.type == "meta" or (fakes is not None and isinstance(local(param), fakes.FakeTensor))


def local(tensor: Any) -> Any:
    """The part of a tensor that this process holds: the same object each time, where `to_local` may give a new view."""
    return tensor._local_tensor if is_sharded(tensor) else tensor


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


def _order_of_cuts(mesh: Any, cuts: Mapping[int, Any]) -> list[int] | None:
    """In which order the dimensions of a mesh have cut a tensor; None where they have not cut it into ranges.

    fully_shard cuts parts that tensor parallelism has made once more, and stands before it: that is strided.
    """
    strided = {dim: cut for dim, cut in cuts.items() if type(cut).__name__ == "_StridedShard"}
    plain = {dim: cut for dim, cut in cuts.items() if type(cut).__name__ == "Shard"}
    if len(strided) + len(plain) < len(cuts) or len({cut.dim for cut in strided.values()}) < len(strided):
        return None
    for dim, cut in strided.items():
        before = [mesh.size(other) for other, by in plain.items() if by.dim == cut.dim and other > dim]
        if cut.split_factor != math.prod(before) or any(by.dim == cut.dim and o < dim for o, by in plain.items()):
            return None
    return [*plain, *strided]


def part_of(param: Any) -> Part | None:
    """Which elements of a parameter each process holds; None where this one has all."""
    if not is_shared(param) or any(placement.is_partial() for placement in param.placements):
        return None
    mesh = param.device_mesh
    dims = [dim for dim, placement in enumerate(param.placements) if not placement.is_replicate()]
    cuts = {dim: param.placements[dim] for dim in dims}
    cutting = _order_of_cuts(mesh, cuts)
    if cutting is None:
        return None
    boxes, own = [], 0
    # In the order in which a mesh gathers: the ranks along its first dimension change quickest.
    for number, ranks in enumerate(product(*(range(mesh.size(dim)) for dim in reversed(dims)))):
        box = [(0, side) for side in param.shape]
        at = dict(zip(dims, reversed(ranks), strict=True))
        for dim, rank in ((dim, at[dim]) for dim in cutting):
            cut = cuts[dim].dim
            first, length = box[cut]
            box[cut] = _chunk(first, length, mesh.size(dim), rank)
        boxes.append(tuple(box))
        if all(mesh.get_local_rank(dim) == rank for dim, rank in at.items()):
            own = number
    if tuple(length for _, length in boxes[own]) != tuple(local(param).shape):
        return None  # cut in some other way
    return Part(tuple(param.shape), tuple(boxes), own)


def sharded_like(param: Any, part: Tensor, space: Space = ELEMENT, matrices: Matrices | None = None) -> Tensor:
    """What is kept of a parameter, with one number for each of a space, from this process's part of it.

    Pairs are cut along their first dimension, whatever the parameter is cut along.
    """
    if not is_sharded(param) or space is TENSOR:
        return part
    shape, stride, placements = param.shape, param.stride(), param.placements
    if space is not ELEMENT:
        shape = torch.Size(shape_of(space, shape, matrices))
        stride = torch.empty(shape, dtype=part.dtype, device="meta").stride()
    if space in PAIRS:
        rows = sys.modules[_SHARDED].Shard(0)
        placements = [p if p.is_replicate() else rows for p in placements]
    if space.is_narrow:  # where rows are cut, each process has what is known of all of a row
        whole = sys.modules[_SHARDED].Replicate()
        lost = [param.dim() + dim for dim in space.lost] if len(shape) == param.dim() else [*range(param.dim())]
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
