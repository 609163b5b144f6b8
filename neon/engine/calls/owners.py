"""Matrices of which several processes know: each goes to one of them, its owner, whole, and back.

Everything that decides who owns what is known to all of these processes: shapes, boxes, and the order of tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, cast

import torch
from torch import Tensor

from neon.engine.arena import ALIGNED, BUCKET, Arena
from neon.engine.calls.exchange import Box, Exchange, Piece
from neon.engine.calls.stacks import Laid, Stacks, bytes_needed
from neon.engine.calls.stacks import buckets_of as buckets_of_one
from neon.engine.program.graph import LOADS, Node, walk
from neon.engine.program.kernel import Calls, Kernel
from neon.engine.program.spaces import PAIRS, Space
from neon.engine.settings import Item, Sharing
from neon.engine.tensors.weight_matrices import ONE_MATRIX, Matrices, shape_of


def sharing_of(item: Item) -> Sharing | None:
    """The processes among which the matrices of a tensor are shared out; None where it has one alone."""
    found = item.sharers if item.part is None else cast("Sharing", item.reach)
    return None if found is None or found.size == 1 else found


def whole_shape(item: Item) -> tuple[int, ...]:
    """The shape of a tensor of which this process may hold a part."""
    return tuple(item.param.shape) if item.part is None else item.part.shape


def matrices_of(item: Item) -> Matrices:
    """The matrices that a whole tensor is made of."""
    return item.matrices or ONE_MATRIX


# -- who owns what ---------------------------------------------------------------------------------


def work_of(item: Item) -> int:
    """About how many products calls take for the matrices of a tensor."""
    shapes = matrices_of(item).shapes(whole_shape(item))
    return sum(count * rows * columns * min(rows, columns) for count, rows, columns in shapes)


def by_work(items: Sequence[tuple[int, Item]]) -> list[tuple[int, Item]]:
    """Tensors with their places, those with most work first, and equal ones together."""
    return sorted(items, key=lambda each: (-work_of(each[1]), whole_shape(each[1]), each[0]))


class Loads:
    """How much work each of some processes has been given."""

    def __init__(self, size: int, first: int) -> None:
        """Of processes that have as little, `first` is asked first, counted around: who are alone take turns."""
        self._work, self._first = [0] * size, first

    @property
    def lightest(self) -> int:
        """The process that has least to do."""
        size = len(self._work)
        return min(range(size), key=lambda process: (self._work[process], (process - self._first) % size))

    def give(self, work: int) -> int:
        """Give work to the process that has least; says to which."""
        owner = self.lightest
        self._work[owner] += work
        return owner


def owners_of(items: Sequence[Item], size: int) -> list[int]:
    """The owner of each tensor, of so many processes: the largest go first, to those that have least to do."""
    loads = Loads(size, min(item.index for item in items))
    given = {place: loads.give(work_of(item)) for place, item in by_work([*enumerate(items)])}
    return [given[place] for place in range(len(items))]


def buckets_of(kernel: Kernel, items: Sequence[tuple[int, Item]], device: torch.device) -> list[list[int]]:
    """Tensors by their places, in buckets that bound the memory of a step.

    Where they are shared out, a bucket is as large as what one process owns of it may be: all of them have work.
    """
    sharing = sharing_of(items[0][1])
    if sharing is None:
        return buckets_of_one(kernel, items, device)
    buckets: list[_Bucket] = []
    for place, item in by_work(items):
        if not buckets or not buckets[-1].takes(item):
            buckets.append(_Bucket(kernel, device, sharing.size, item))
        buckets[-1].add(place, item)
    return [sorted(bucket.places) for bucket in buckets]


class _Bucket:
    """Tensors that are worked on at the same time by all processes, begun with a first one."""

    def __init__(self, kernel: Kernel, device: torch.device, size: int, item: Item) -> None:
        self._kernel, self._device, self._loads = kernel, device, Loads(size, item.index)
        self.places: list[int] = []
        self._held, self._room = [0] * size, max(BUCKET, self._owned(item))
        self._here, self._room_here = 0, max(BUCKET, size * self._local(item))

    def _owned(self, item: Item) -> int:
        """How many bytes its owner has to have for a tensor."""
        shapes = matrices_of(item).shapes(whole_shape(item))
        squares = (
            0 if item.part is None else sum(math.prod(square_of(s, item)) for s in pairs_of(self._kernel).values())
        )
        size = self._kernel.formats.compute.itemsize
        return sum(bytes_needed(self._kernel, each, self._device) for each in shapes) + squares * size

    def _local(self, item: Item) -> int:
        """How many bytes each process has to have for what it holds of a tensor."""
        whole = math.prod(whole_shape(item))
        # Alike on all processes, who hold other parts: their mean.
        elements = whole if item.part is None else whole // len(item.part.boxes)
        return elements * self._kernel.formats.compute.itemsize * len(self._kernel.buffers)

    def takes(self, item: Item) -> bool:
        """Whether there is room for one more."""
        held = self._held[self._loads.lightest] + self._owned(item)
        return held <= self._room and self._here + self._local(item) <= self._room_here

    def add(self, place: int, item: Item) -> None:
        """Put in one more."""
        self.places.append(place)
        self._held[self._loads.give(work_of(item))] += self._owned(item)
        self._here += self._local(item)


# -- the calls of a batch --------------------------------------------------------------------------


class Owned:
    """The buffers of a batch whose matrices are shared out, and the calls for those that are owned here.

    It stands where `Stacks` stands where nothing is shared. Beside the buffers for what is here lie, for the tensors
    that this process owns, those of whole ones, their states of pairs, and what is packed.
    """

    def __init__(
        self,
        kernel: Kernel,
        laid: Sequence[Laid],
        items: Sequence[Item],
        pairs: Sequence[Mapping[str, Tensor]],
        sharing: Sharing,
    ) -> None:
        self._kernel, self._laid, self._pairs, self._dtype = kernel, laid, pairs, kernel.formats.compute
        owners = owners_of(items, sharing.size)
        self._owned = [position for position, owner in enumerate(owners) if owner == sharing.own]
        self._shapes = [*map(whole_shape, items)]
        self._squares = {name: [square_of(space, item) for item in items] for name, space in pairs_of(kernel).items()}
        # Of whole tensors, states of pairs are whole where they lie.
        self._copied = items[0].part is not None
        self._wholes: list[dict[str, Tensor]] = [{} if self._copied else {**pairs[owned]} for owned in self._owned]
        whole = [_as_whole(laid[owned], self._shapes[owned]) for owned in self._owned]
        self._stacks = Stacks(kernel, whole, self._wholes)
        pieces = {name: self._pieces(name, items, owners, sharing) for name in (*kernel.buffers, *self._squares)}
        self._steps = {
            calls: [(names, Exchange(sharing, [piece for name in names for piece in pieces[name]])) for names in both]
            for calls, *both in names_exchanged(kernel)
        }
        self._firsts, self._elements = self._in_row([each.shape for each in laid])
        shapes = [shapes[owned] for owned in self._owned for shapes in self._squares.values() if self._copied]
        self._first_squares, self._of_squares = self._in_row(shapes)
        self._square_shapes = shapes
        exchanges = [exchange for step in self._steps.values() for _, exchange in step]
        self._packed = self._aligned(max(exchange.elements for exchange in exchanges))

    def _pieces(self, name: str, items: Sequence[Item], owners: Sequence[int], sharing: Sharing) -> list[Piece]:
        """What all tensors have by the name of a buffer, or of a state of pairs, whose rows lie one after another."""
        if name not in self._squares:
            parts = [None if item.part is None else item.part.boxes for item in items]
            return [*map(Piece, self._shapes, owners, parts)]
        shapes = self._squares[name]
        boxes = [
            None if item.part is None else rows_of(shape, sharing) for item, shape in zip(items, shapes, strict=True)
        ]
        return [*map(Piece, shapes, owners, boxes)]

    def _in_row(self, shapes: Sequence[tuple[int, ...]]) -> tuple[list[int], int]:
        """Where tensors begin that lie one after another, and where they end."""
        firsts, taken = [], 0
        for shape in shapes:
            firsts.append(taken)
            taken = self._aligned(taken + math.prod(shape))
        return firsts, taken

    def _aligned(self, elements: int) -> int:
        step = ALIGNED // self._dtype.itemsize
        return -(-elements // step) * step

    @property
    def size(self) -> int:
        """How many bytes all of this takes."""
        elements = self._elements * len(self._kernel.buffers) + self._packed + self._of_squares
        return elements * self._dtype.itemsize + self._stacks.size

    def beside(self, device: torch.device) -> int:
        """How many bytes calls take beside all of this on a device."""
        return self._stacks.beside(device)

    def lay(self, arena: Arena) -> None:
        """Have the buffers in an arena from now on."""
        names, size = self._kernel.buffers, self._dtype.itemsize
        counts = [*[self._elements] * len(names), self._packed, self._of_squares]
        ends = [*accumulate(counts)]
        *buffers, self._memory, squares = (
            arena.cut((end - count) * size, (count,), self._dtype) for end, count in zip(ends, counts, strict=True)
        )
        self._buffers = dict(zip(names, buffers, strict=True))
        if self._copied:
            found = iter(zip(self._first_squares, self._square_shapes, strict=True))
            for whole in self._wholes:
                for name in self._squares:
                    first, shape = next(found)
                    whole[name] = squares[first : first + math.prod(shape)].view(shape)
        self._stacks.lay(arena.behind(ends[-1] * size))

    def of(self, position: int) -> dict[str, Tensor]:
        """The buffers of what is here of a tensor, as vectors in the order of memory."""
        first = self._firsts[position]
        count = math.prod(self._laid[position].shape)
        return {name: buffer[first : first + count] for name, buffer in self._buffers.items()}

    def begin(self) -> None:
        """Forget what calls have left of the step before."""
        self._stacks.begin()

    def run(self, calls: Calls, numbers: Mapping[Node, Any], left_out: Tensor | None) -> None:
        """Make of the matrices owned here what calls make, and have all processes know what is theirs of it."""
        (read, there), (written, back) = self._steps[calls]
        there.collect(self._local(read), self._whole(read), self._memory)
        self._stacks.run(calls, numbers, left_out)
        back.give_back(self._local(written), self._whole(written), self._memory)

    def _local(self, names: Sequence[str]) -> list[Tensor]:
        vectors = [self.of(position) for position in range(len(self._laid))]
        return [
            each.in_memory(found[name]) if name in found else kept[name]
            for name in names
            for each, found, kept in zip(self._laid, vectors, self._pairs, strict=True)
        ]

    def _whole(self, names: Sequence[str]) -> dict[int, Tensor]:
        found: dict[int, Tensor] = {}
        for number, position in enumerate(self._owned):
            tensors = {name: vector.view(self._shapes[position]) for name, vector in self._stacks.of(number).items()}
            tensors |= self._wholes[number]
            found |= {order * len(self._laid) + position: tensors[name] for order, name in enumerate(names)}
        return found


def _as_whole(laid: Laid, shape: tuple[int, ...]) -> Laid:
    return laid._replace(shape=shape, stride=torch.empty(shape, device="meta").stride())


def pairs_of(kernel: Kernel) -> dict[str, Space]:
    """The states of pairs, by name."""
    return {slot.name: slot.space for slot in kernel.slots if slot.space in PAIRS}


def square_of(space: Space, item: Item) -> tuple[int, ...]:
    """The shape of a state of pairs, of the whole tensor."""
    return shape_of(space, whole_shape(item), item.matrices)


def rows_of(shape: tuple[int, ...], sharing: Sharing) -> tuple[Box, ...]:
    """What each process has of a tensor that is cut along its first dimension."""
    others = tuple((0, side) for side in shape[1:])
    return tuple((rows, *others) for rows in sharing.cut(shape[0]))


def names_exchanged(kernel: Kernel) -> Iterator[tuple[Calls, tuple[str, ...], tuple[str, ...]]]:
    """Of each stage of calls what owners have to be told, buffers and states, and whose new values all have to know.

    What owners have made themselves since the last pass wrote to it they know; what no pass reads is theirs alone.
    """
    known: set[str] = set()
    for place, stage in enumerate(kernel.stages):
        if stage.calls is None:
            known -= {*stage.stores}
            continue
        loads = {str(node.label) for node in walk(stage.calls.roots, into_reductions=False) if node.op in LOADS}
        # On a device that leaves the step out, what is stored stays as it was.
        loads |= {*stage.calls.stores}
        read = [name for name in (*kernel.buffers, *pairs_of(kernel)) if name in loads and name not in known]
        known |= {*read, *stage.calls.buffers}
        read_later = (name for name in stage.calls.buffers if _is_read(kernel, place, name))
        yield stage.calls, tuple(read), (*read_later, *stage.calls.stores)


def _is_read(kernel: Kernel, place: int, name: str) -> bool:
    """Whether a pass behind a stage reads a buffer as that stage has left it."""
    for stage in kernel.stages[place + 1 :]:
        if stage.is_pass and any(load.label == name for load in stage.loads):
            return True
        if name in (stage.stores if stage.calls is None else stage.calls.buffers):
            return False
    return False
