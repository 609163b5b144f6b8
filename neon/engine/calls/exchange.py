"""Pieces of tensors that go to their owners in one packed exchange, whole, and back."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from neon.engine.settings import Sharing

# Of each dimension of a tensor, where a process's part begins, and how long it is.
Box = tuple[tuple[int, int], ...]


class Piece(NamedTuple):
    """A tensor that its owner is to have whole, and the box of each process; none where each has the whole."""

    shape: tuple[int, ...]
    owner: int
    boxes: tuple[Box, ...] | None = None

    def shape_of(self, process: int) -> tuple[int, ...]:
        """The shape of what a process has of it."""
        return self.shape if self.boxes is None else tuple(length for _, length in self.boxes[process])

    def within(self, process: int) -> tuple[slice, ...]:
        """Where that is in the whole."""
        sides = ((0, side) for side in self.shape) if self.boxes is None else self.boxes[process]
        return tuple(slice(first, first + length) for first, length in sides)


class Exchange:
    """Pieces of one dtype that go to their owners together, and back; here is what one process does for it.

    Every size is known beforehand: nobody waits for anything but the elements. Either all pieces are in boxes, or none.
    """

    def __init__(self, sharing: Sharing, pieces: Sequence[Piece]) -> None:
        self._sharing, self._pieces = sharing, pieces
        self._own = own = sharing.own
        self._of_owner = [
            [place for place, piece in enumerate(pieces) if piece.owner == owner] for owner in range(sharing.size)
        ]
        self._copies = bool(pieces) and pieces[0].boxes is None
        # What this process has of the pieces of each owner, and what each process has of the pieces owned here.
        self._sent = [[pieces[place].shape_of(own) for place in owned] for owned in self._of_owner]
        owned = self._of_owner[own]
        self._taken = [[pieces[place].shape_of(process) for place in owned] for process in range(sharing.size)]
        if self._copies:
            self._taken = []
        self._counts = _counts(self._sent), _counts(self._taken)

    @property
    def elements(self) -> int:
        """How many elements are packed here."""
        return sum(map(sum, self._counts))

    def collect(self, local: Sequence[Tensor], whole: Mapping[int, Tensor], memory: Tensor) -> None:
        """Have owners know the whole of their pieces; `whole` has the pieces of this one, by their places.

        `memory` is a vector of `elements`, in which they are packed.
        """
        owned = self._of_owner[self._own]
        if self._copies:
            for place in owned:
                whole[place].copy_(local[place])
            return
        sent, taken = self._wires(memory)
        for owner, chunks in self._parts(sent, self._sent):
            for place, chunk in zip(self._of_owner[owner], chunks, strict=True):
                chunk.copy_(local[place])
        self._sharing.exchange(sent, self._counts[0], taken, self._counts[1])
        for process, chunks in self._parts(taken, self._taken):
            for place, chunk in zip(owned, chunks, strict=True):
                whole[place][self._pieces[place].within(process)].copy_(chunk)

    def give_back(self, local: Sequence[Tensor], whole: Mapping[int, Tensor], memory: Tensor) -> None:
        """Have all processes know what owners have made of their pieces."""
        owned = self._of_owner[self._own]
        sent, taken = self._wires(memory)
        if self._copies:
            parts = sent.split(self._counts[0])
            for place, chunk in zip(owned, _cut(parts[self._own], self._sent[self._own]), strict=True):
                chunk.copy_(whole[place])
            self._sharing.spread(parts)
        else:
            for process, chunks in self._parts(taken, self._taken):
                for place, chunk in zip(owned, chunks, strict=True):
                    chunk.copy_(whole[place][self._pieces[place].within(process)])
            self._sharing.exchange(taken, self._counts[1], sent, self._counts[0])
        for owner, chunks in self._parts(sent, self._sent):
            for place, chunk in zip(self._of_owner[owner], chunks, strict=True):
                local[place].copy_(chunk)

    def _wires(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Where it is packed: what this process has of all pieces, and what all processes have of those owned here."""
        first = sum(self._counts[0])
        return memory[:first], memory[first : self.elements]

    def _parts(
        self, wire: Tensor, shapes: Sequence[Sequence[tuple[int, ...]]]
    ) -> Iterator[tuple[int, Iterator[Tensor]]]:
        """The chunks of each process, by its number."""
        for process, part in enumerate(wire.split([*map(_count, shapes)])):
            yield process, _cut(part, shapes[process])


def _count(shapes: Sequence[tuple[int, ...]]) -> int:
    return sum(map(math.prod, shapes))


def _counts(shapes: Sequence[Sequence[tuple[int, ...]]]) -> list[int]:
    return [*map(_count, shapes)]


def _cut(part: Tensor, shapes: Sequence[tuple[int, ...]]) -> Iterator[Tensor]:
    first = 0
    for shape in shapes:
        yield part[first : first + math.prod(shape)].view(shape)
        first += math.prod(shape)
