"""The matrices of a batch in stacks of equal shapes: where their buffers lie, and the calls that work on them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neon.engine.arena import ALIGNED, BUCKET, Arena
from neon.engine.calls.called import CALLS
from neon.engine.program.graph import CALL, LOADS, Node, walk
from neon.engine.program.kernel import Calls, Kernel
from neon.engine.program.operations import OPERATIONS
from neon.engine.program.spaces import COLUMN_PAIRS, ELEMENT, PAIRS, ROW_PAIRS
from neon.engine.settings import Item
from neon.engine.tensors.weight_matrices import ONE_MATRIX, Matrices, Stack

# From so many elements on copying a matrix takes longer than Python around a call.
_LARGE = 128 * 128


def buckets_of(kernel: Kernel, items: Sequence[tuple[int, Item]], device: torch.device) -> list[list[int]]:
    """Tensors by their places, in buckets that bound the memory of a step: equal ones together, each in its order."""
    shapes = {place: (item.matrices or ONE_MATRIX).shapes(item.param.shape) for place, item in items}
    buckets: list[_Bucket] = []
    for place in sorted(shapes, key=lambda place: (shapes[place], place)):
        if not buckets or not buckets[-1].takes(shapes[place]):
            buckets.append(_Bucket(kernel, device, shapes[place]))
        buckets[-1].add(place, shapes[place])
    return [sorted(bucket.places) for bucket in buckets]


class _Bucket:
    """Tensors that are worked on at the same time, begun with the stacks of a first one."""

    def __init__(self, kernel: Kernel, device: torch.device, first: Sequence[Stack]) -> None:
        self._kernel, self._device = kernel, device
        self.places: list[int] = []
        self._counts: Counter[tuple[int, int]] = Counter()
        self._room = [max(BUCKET // 2, needed) for needed in self._needed(first)]

    def _needed(self, more: Sequence[Stack]) -> tuple[int, int]:
        """How many bytes buffers take with some stacks more, and calls beside them, one shape after another."""
        counts = Counter(self._counts)
        _count(counts, more)
        stacks = [(count, *sides) for sides, count in counts.items()]
        beside = max((call_bytes(self._kernel, each, self._device) for each in stacks), default=0)
        return sum(buffer_bytes(self._kernel, each) for each in stacks), beside

    def takes(self, stacks: Sequence[Stack]) -> bool:
        """Whether there is room for one tensor more.

        Each kind has a half of what there is: the largest buffers of one bucket lie beside the calls of another.
        """
        return all(needed <= room for needed, room in zip(self._needed(stacks), self._room, strict=True))

    def add(self, place: int, stacks: Sequence[Stack]) -> None:
        """Put in one more."""
        self.places.append(place)
        _count(self._counts, stacks)


def _count(counts: Counter[tuple[int, int]], stacks: Sequence[Stack]) -> None:
    for count, rows, columns in stacks:
        counts[rows, columns] += count


def bytes_needed(kernel: Kernel, shape: Stack, device: torch.device) -> int:
    """How many bytes a stack takes: its buffers, and what calls have beside them."""
    return buffer_bytes(kernel, shape) + call_bytes(kernel, shape, device)


def buffer_bytes(kernel: Kernel, shape: Stack) -> int:
    """How many bytes the buffers of a stack take."""
    return len(kernel.buffers) * math.prod(shape) * kernel.formats.compute.itemsize


def call_bytes(kernel: Kernel, shape: Stack, device: torch.device) -> int:
    """How many bytes calls take for a stack, beside its buffers."""
    dtype = kernel.formats.compute
    return max(CALLS[each.name].temporaries(shape, dtype, device, **dict(each.choices)) for each in kernel.called)


class Laid(NamedTuple):
    """A tensor whose matrices are worked on: its shape and strides, what is a matrix of it, and its row of numbers."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    matrices: Matrices
    row: int

    @property
    def is_plain(self) -> bool:
        """Whether its memory is its matrices, one after another, and all of one shape."""
        with torch.inference_mode(mode=False):  # in which no tensor is known for a view
            tensor = torch.empty_strided(self.shape, self.stride, device="meta")
            stacks = self.matrices.gather(tensor)
        return len(stacks) == 1 and stacks[0]._is_view() and stacks[0].is_contiguous()

    def in_memory(self, vector: Tensor) -> Tensor:
        """A vector of its elements, in the order of memory, as the tensor."""
        return vector.as_strided(self.shape, self.stride)


class _Stack:
    """Tensors of which stacks of equal matrices are taken, and where these lie in the buffers, if they do."""

    def __init__(self, shape: tuple[int, int], row: int) -> None:
        self.shape, self.row = shape, row
        self.members: list[tuple[int, int, int]] = []  # of a tensor, which of its stacks, of how many matrices
        self.first: int | None = None  # the first element of the buffers, where they are all plain

    @property
    def count(self) -> int:
        """How many matrices there are."""
        return sum(count for *_, count in self.members)


class Stacks:
    """The buffers of a batch's tensors, and the calls of its kernel."""

    def __init__(self, kernel: Kernel, laid: Sequence[Laid], pairs: Sequence[Mapping[str, Tensor]]) -> None:
        self._kernel, self._laid, self._pairs = kernel, laid, pairs
        self._known: list[dict[Node, Any]] = []
        stacks: dict[tuple[tuple[int, int], int, bool, int], _Stack] = {}
        for position, each in enumerate(laid):
            plain = each.is_plain
            for place, (count, *shape) in enumerate(each.matrices.shapes(each.shape)):
                # Calls of what keeps pairs go by matrices one after another: of long stacks they have copies alone.
                alone = position if pairs[position] and math.prod(shape) >= _LARGE else -1
                key = ((shape[0], shape[1]), each.row, plain, alone)
                stack = stacks.setdefault(key, _Stack(key[0], each.row))
                stack.members.append((position, place, count))
        self._stacks = [*stacks.values()]
        self._firsts = [0] * len(laid)
        taken = 0
        aligned = ALIGNED // kernel.formats.compute.itemsize
        for (*_, plain, _), stack in stacks.items():
            taken = -(-taken // aligned) * aligned
            stack.first = taken if plain else None
            for position, place, _ in stack.members:
                if place == 0:
                    self._firsts[position] = taken
                    taken += torch.Size(laid[position].shape).numel()
        self._elements = -(-taken // aligned) * aligned

    @property
    def size(self) -> int:
        """How many bytes the buffers take."""
        return self._elements * self._kernel.formats.compute.itemsize * len(self._kernel.buffers)

    def beside(self, device: torch.device) -> int:
        """How many bytes the calls of a step take beside the buffers on a device, at most.

        What later calls need, and what is stored, is kept of all stacks until the step ends.
        """
        kept, most, known = 0, 0, dict[Node, None]()
        for calls in (stage.calls for stage in self._kernel.stages if stage.calls is not None):
            staying = {*calls.values, *calls.stores.values()} - known.keys()
            nodes = [node for node in walk(calls.roots, into_reductions=False, given=known) if node not in known]
            called = [node for node in nodes if node.op == CALL]
            in_place = called if _is_in_place(calls, called) else ()
            for stack in self._stacks:
                held = kept
                for node in nodes:
                    held += 0 if node in in_place else self._bytes_of(stack, node)
                    most = max(most, held + (self._bytes_beside(stack, node, device) if node.op == CALL else 0))
                kept += sum(self._bytes_of(stack, node) for node in staying)
            known |= dict.fromkeys(staying)
        return most

    def _bytes_of(self, stack: _Stack, node: Node) -> int:
        """What a value of a stack takes, which is not where it lies."""
        if node.op in LOADS and (len(stack.members) == 1 if node.space in PAIRS else stack.first is not None):
            return 0
        if node.space not in PAIRS and node.space is not ELEMENT:
            return 0
        return math.prod(self._shape_of(stack, node)) * self._kernel.formats.compute.itemsize

    def _bytes_beside(self, stack: _Stack, node: Node, device: torch.device) -> int:
        call = CALLS[node.label.name]
        shape = self._shape_of(stack, node)
        return call.temporaries(shape, self._kernel.formats.compute, device, **dict(node.label.choices))

    def _shape_of(self, stack: _Stack, node: Node) -> Stack:
        rows, columns = stack.shape
        sides = {ROW_PAIRS: (rows, rows), COLUMN_PAIRS: (columns, columns)}
        return (stack.count, *sides.get(node.space, stack.shape))

    def lay(self, arena: Arena) -> None:
        """Have the buffers in an arena from now on."""
        dtype = self._kernel.formats.compute
        step = self._elements * dtype.itemsize
        self._buffers = {
            name: arena.cut(place * step, (self._elements,), dtype) for place, name in enumerate(self._kernel.buffers)
        }

    def of(self, position: int) -> dict[str, Tensor]:
        """The buffers of a tensor, as vectors in the order of memory."""
        first = self._firsts[position]
        count = torch.Size(self._laid[position].shape).numel()
        return {name: buffer[first : first + count] for name, buffer in self._buffers.items()}

    # -- the calls of a step -----------------------------------------------------------------------

    def begin(self) -> None:
        """Forget what calls have left of the step before."""
        self._known = [{} for _ in self._stacks]

    def run(self, calls: Calls, numbers: Mapping[Node, Any], left_out: Tensor | None) -> None:
        """Make of all stacks what calls make; a number is one for all rows, or an array of them.

        Where `left_out`, a number on the device, is not 0, states stay as they are.
        """
        for stack, known in zip(self._stacks, self._known, strict=True):
            if not stack.count:
                continue
            row = {
                node: float(value[stack.row]) if getattr(value, "ndim", 0) else value for node, value in numbers.items()
            }
            self._run(stack, calls, known, row)
            for name, root in calls.stores.items():
                self._store(stack, name, known[root], left_out)

    def _run(self, stack: _Stack, calls: Calls, known: dict[Node, Any], numbers: Mapping[Node, float]) -> None:
        given: dict[Node, Any] = {**known, **numbers}
        nodes = [*walk(calls.roots, into_reductions=False, given=given)]
        in_place = _is_in_place(calls, [node for node in nodes if node.op == CALL])
        for node in nodes:
            if node not in given:
                given[node] = self._value(stack, node, given, in_place=in_place)
        for name, root in calls.buffers.items():
            self._put(stack, name, given[root])
        known |= {node: given[node] for node in (*calls.values, *calls.stores.values())}

    def _value(self, stack: _Stack, node: Node, given: Mapping[Node, Any], *, in_place: bool) -> Any:
        if node.op == "const":
            return node.label
        if node.op in LOADS and node.space in PAIRS:
            return self._read(stack, node.label)
        if node.op in LOADS:
            return self._get(stack, node.label)
        operands = [given[operand] for operand in node.args]
        if node.op == CALL:
            out = {"out": operands[0]} if in_place else {}
            return CALLS[node.label.name].function(*operands, **dict(node.label.choices), **out)
        like = next(x for x in operands if isinstance(x, Tensor))
        return OPERATIONS[node.op].torch(*(x if isinstance(x, Tensor) else like.new_tensor(x) for x in operands))

    def _get(self, stack: _Stack, name: str) -> Tensor:
        """The matrices of a buffer, where they lie or copied to one place."""
        if stack.first is not None:
            return self._whole(stack, name)
        return torch.cat([self._gathered(position, name)[place] for position, place, _ in stack.members])

    def _put(self, stack: _Stack, name: str, value: Tensor) -> None:
        if stack.first is not None:
            whole = self._whole(stack, name)
            if whole.data_ptr() != value.data_ptr():  # not yet in its place
                whole.copy_(value)
            return
        parts = value.split([count for *_, count in stack.members])
        for (position, place, _), part in zip(stack.members, parts, strict=True):
            laid = self._laid[position]
            tensor = laid.in_memory(self.of(position)[name])
            count = len(laid.matrices.shapes(laid.shape))
            laid.matrices.scatter([part if each == place else None for each in range(count)], tensor)

    def _read(self, stack: _Stack, name: str) -> Tensor:
        """A state of pairs of the matrices."""
        kept = [(self._pairs[position][name], count) for position, _, count in stack.members]
        stacks = [state.view(count, *state.shape[-2:]) for state, count in kept]
        return stacks[0] if len(stacks) == 1 else torch.cat(stacks)

    def _store(self, stack: _Stack, name: str, value: Tensor, left_out: Tensor | None) -> None:
        parts = value.split([count for *_, count in stack.members])
        for (position, *_), part in zip(stack.members, parts, strict=True):
            state = self._pairs[position][name]
            new = part.view(state.shape)
            state.copy_(new if left_out is None else torch.where(left_out == 0, new, state))

    def _whole(self, stack: _Stack, name: str) -> Tensor:
        assert stack.first is not None
        shape = (stack.count, *stack.shape)
        return self._buffers[name][stack.first : stack.first + torch.Size(shape).numel()].view(shape)

    def _gathered(self, position: int, name: str) -> list[Tensor]:
        laid = self._laid[position]
        return laid.matrices.gather(laid.in_memory(self.of(position)[name]))


def _is_in_place(calls: Calls, called: Sequence[Node]) -> bool:
    """Whether there is one call alone, which may write its result where its operand lies, and is to."""
    if len(called) != 1 or not CALLS[called[0].label.name].in_place:
        return False
    operand = called[0].args[0]
    return operand.op in LOADS and calls.buffers.get(operand.label) is called[0]
