"""Matrices of which several processes know: who owns which, in what buckets, and the way there and back, packed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from neon.engine.calls.exchange import Exchange, Piece
from neon.engine.calls.owners import buckets_of, names_exchanged, owners_of, rows_of, work_of
from neon.engine.program.kernel import Kernel
from neon.engine.program.lowering import lower
from neon.engine.program.slots import Formats
from neon.engine.settings import Item, Part
from neon.engine.tensors.weight_matrices import Matrices
from neon.optimizers import Adam, Optimizer
from neon.optimizers.matrix_functions import orthogonalize


class Room:
    """Where processes meet, each a thread here."""

    def __init__(self, size: int) -> None:
        self.size, self._barrier = size, threading.Barrier(size, timeout=20)
        self._sent: dict[int, Sequence[Tensor]] = {}
        self.exchanges = 0

    def gather(self, own: int, sent: Sequence[Tensor]) -> dict[int, Sequence[Tensor]]:
        self._sent[own] = sent
        if self._barrier.wait() == 0:
            self.exchanges += 1
        found: dict[int, Sequence[Tensor]] = {
            own: [part.clone() for part in parts] for own, parts in self._sent.items()
        }
        self._barrier.wait()
        return found

    def run(self, act: Callable[[Member], Any]) -> list[Any]:
        """What each process makes of it."""
        found: dict[int, Any] = {}

        def one(own: int) -> None:
            found[own] = act(Member(self, own))

        threads = [threading.Thread(target=one, args=(own,)) for own in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [found[own] for own in range(self.size)]


class Member:
    """A process in the room."""

    alike = True

    def __init__(self, room: Room, own: int) -> None:
        self._room, self.size, self.own = room, room.size, own

    def gather(self, values: list[float]) -> list[list[float]]:
        raise NotImplementedError

    def gather_tensors(self, values: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        raise NotImplementedError

    def cut(self, length: int) -> list[tuple[int, int]]:
        share = -(-length // self.size)
        starts = [min(length, place * share) for place in range(self.size)]
        return [(start, min(share, length - start)) for start in starts]

    def exchange(self, sent: Tensor, counts: Sequence[int], taken: Tensor, counts_taken: Sequence[int]) -> None:
        assert (len(sent), len(taken)) == (sum(counts), sum(counts_taken))
        found = self._room.gather(self.own, sent.split([*counts]))
        for process, part in enumerate(taken.split([*counts_taken])):
            part.copy_(found[process][self.own])

    def spread(self, parts: Sequence[Tensor]) -> None:
        found = self._room.gather(self.own, parts)
        for process, part in enumerate(parts):
            part.copy_(found[process][process])


def items(*shapes: tuple[int, ...], size: int = 2, matrices: Matrices | None = None) -> list[Item]:
    """Parameters of which this process has all rows, for want of others; who owns what goes by whole shapes alone."""
    member = Member(Room(size), 0)
    return [
        Item(
            f"w{index}", torch.empty(shape, device="meta"), {}, torch.zeros(()), 0, index, member,
            part=Part(shape, rows_of(shape, member), 0), matrices=matrices,
        )
        for index, shape in enumerate(shapes)
    ]  # fmt: skip


# -- who owns what ---------------------------------------------------------------------------------


def test_work_is_that_of_the_products_of_all_matrices() -> None:
    [plain] = items((6, 4))
    [fused] = items((6, 4), matrices=Matrices(3))
    [convolution] = items((4, 2, 3, 3))
    assert (work_of(plain), work_of(fused), work_of(convolution)) == (6 * 4 * 4, 3 * 2 * 4 * 2, 4 * 18 * 4)


def test_owners_have_about_as_much_work_each() -> None:
    shapes = [(64, 256)] * 5 + [(256, 64)] * 3 + [(16, 16)] * 40 + [(1, 9), (0, 4)]
    found = items(*shapes)
    for size in (1, 2, 3, 4, 7):
        owners = owners_of(found, size)
        loads = [sum(work_of(i) for i, owner in zip(found, owners, strict=True) if owner == p) for p in range(size)]
        assert max(loads) - min(loads) <= 64 * 256 * 64
        assert owners == owners_of(found, size)


def test_those_who_own_one_matrix_alone_take_turns() -> None:
    """As parameters are updated within the backward pass, one at a time."""
    found = items(*[(8, 8)] * 6)
    assert [owners_of([item], 3)[0] for item in found] == [0, 1, 2, 0, 1, 2]


class Rule(Optimizer):
    """Two calls with a pass between them that reads the first one's result."""

    @staticmethod
    def rule(w: Any, g: Any, exp_avg: Any, *, lr: Any = 0.1) -> Any:
        first = orthogonalize(g)
        exp_avg = 0.9 * exp_avg + 0.1 * first * first
        return w - lr * orthogonalize(first + exp_avg), exp_avg


class Nested(Optimizer):
    """A call of what another has made: nobody but the owner sees that."""

    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
        return w - lr * orthogonalize(orthogonalize(g))


def kernel_of(rule: type[Optimizer]) -> Kernel:
    description = rule()
    program = description.settings(description.group()).program
    states = (torch.float32,) * len(program.states)
    return lower(program, Formats(torch.float32, torch.float32, states, None, False))


def test_what_no_pass_reads_stays_with_the_owner() -> None:
    exchanged = [(len(read), len(written)) for _, read, written in names_exchanged(kernel_of(Rule))]
    assert exchanged == [(1, 1), (1, 1)]
    assert sum(len(read) for _, read, _ in names_exchanged(kernel_of(Nested))) == 1
    assert sum(len(written) for _, _, written in names_exchanged(kernel_of(Nested))) == 1


@pytest.mark.parametrize("size", [2, 4])
def test_a_bucket_is_what_one_process_may_own(size: int) -> None:
    """Matrices that fill a bucket each: as many are worked on at a time as there are processes."""
    kernel, device = kernel_of(Rule), torch.device("cpu")
    found = items(*[(4096, 4096)] * 8, size=size)
    buckets = buckets_of(kernel, [*enumerate(found)], device)
    assert [len(bucket) for bucket in buckets] == [size] * (8 // size)
    small = items(*[(64, 64)] * 100, size=size)
    assert [len(bucket) for bucket in buckets_of(kernel, [*enumerate(small)], device)] == [100]


def test_buckets_begin_with_what_takes_longest() -> None:
    found = items(*[(64, 64)] * 3, *[(4096, 4096)] * 3, (0, 5))
    buckets = buckets_of(kernel_of(Rule), [*enumerate(found)], torch.device("cpu"))
    assert sorted(place for bucket in buckets for place in bucket) == [*range(7)]
    assert buckets[0] == [3, 4]
    assert all(one == sorted(one) for one in buckets)
    works = [[work_of(found[place]) for place in bucket] for bucket in buckets]
    assert all(max(after) <= max(before) for before, after in pairwise(works))


# -- packed ----------------------------------------------------------------------------------------

SHAPES = [(8, 16), (5, 7), (3, 2, 2), (1, 9), (0, 4), (6, 6)]


def boxes(kind: str, shape: tuple[int, ...], member: Member) -> Any:
    """By rows, or by columns."""
    if kind == "rows":
        return rows_of(shape, member)
    others = [(0, side) for side in shape[:-1]]
    return tuple((*others, columns) for columns in member.cut(shape[-1]))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_owners_are_sent_whole_tensors_and_give_back_parts(size: int) -> None:
    """In one exchange each way, wherever parts lie, and in whatever order of memory."""
    room = Room(size)
    wholes = [torch.randn(shape) for shape in SHAPES]
    kinds = ["rows", "columns"] * 3

    def act(member: Member) -> list[Tensor]:
        pieces = [
            Piece(shape, place % size, boxes(kind, shape, member))
            for place, (shape, kind) in enumerate(zip(SHAPES, kinds, strict=True))
        ]
        local = [whole[piece.within(member.own)].clone() for whole, piece in zip(wholes, pieces, strict=True)]
        local[0] = local[0].T.contiguous().T  # strided otherwise
        owned = {p: torch.full(s, torch.nan) for p, s in enumerate(SHAPES) if p % size == member.own}
        exchange = Exchange(member, pieces)
        memory = torch.empty(exchange.elements)
        exchange.collect(local, owned, memory)
        for place, tensor in owned.items():
            assert torch.equal(tensor, wholes[place])
            tensor.mul_(2)
        exchange.give_back(local, owned, memory)
        for tensor, whole, piece in zip(local, wholes, pieces, strict=True):
            assert torch.equal(tensor, 2 * whole[piece.within(member.own)])
        return local

    found = room.run(act)
    assert room.exchanges == 2
    assert sum(local[0].numel() for local in found) == wholes[0].numel()


@pytest.mark.parametrize("size", [1, 3])
def test_of_whole_tensors_owners_spread_what_they_have_made(size: int) -> None:
    """Nothing is sent before: each process has all there is."""
    room = Room(size)
    wholes = [torch.randn(shape) for shape in SHAPES]

    def act(member: Member) -> list[Tensor]:
        pieces = [Piece(shape, place % size) for place, shape in enumerate(SHAPES)]
        local = [whole.clone() for whole in wholes]
        owned = {p: torch.empty(s) for p, s in enumerate(SHAPES) if p % size == member.own}
        exchange = Exchange(member, pieces)
        memory = torch.empty(exchange.elements)
        exchange.collect(local, owned, memory)
        for tensor in owned.values():
            tensor.mul_(2)
        exchange.give_back(local, owned, memory)
        return local

    for local in room.run(act):
        assert all(torch.equal(tensor, 2 * whole) for tensor, whole in zip(local, wholes, strict=True))
    assert room.exchanges == 1


# -- refused ---------------------------------------------------------------------------------------


def test_matrices_are_shared_out_where_there_are_processes() -> None:
    p = torch.nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match="over the default process group, and there is none"):
        Rule().attach([p], share_matrices=True)
    with pytest.raises(TypeError, match="share_matrices"):
        Adam().attach([p], share_matrices=1)
