"""Rows and columns of tensors of which other processes hold parts: what belongs to whole ones is on each process.

A process takes sums along the rows and columns of its own part. They are gathered, added up in the order of processes,
and every process computes for itself what is made of them, as one process alone would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from neon.engine.beside import Beside, Take, combined, size_of
from neon.engine.program.graph import LOADS, Node, walk
from neon.engine.program.kernel import Kernel, Stage
from neon.engine.program.reductions import kind_of
from neon.engine.program.spaces import COLUMNS, Space
from neon.engine.settings import Item, Part, Sharing
from neon.engine.tensors.sides import Sides


class Whole(Beside):
    """What is beside a whole tensor on each of its processes, and its states of rows and columns, as vectors."""

    def __init__(self, kernel: Kernel, item: Item, local: Beside) -> None:
        assert item.part is not None
        self.part, self.local = item.part.flattened() if kernel.program.sees_matrices else item.part, local
        super().__init__(kernel, Sides.of(self.part.shape).uncut())
        self.own = {slot.name: kept for slot, kept in item.kept.items() if slot.space.is_narrow}
        self.spaces = {slot.name: slot.space for slot in item.kept}
        self._states = {name: (self.sides.count(self.spaces[name]), state.dtype) for name, state in self.own.items()}
        self.states: dict[str, Tensor] = {}

    @property
    def size(self) -> int:
        return super().size + size_of(self._states)

    def lay(self, take: Take) -> None:
        super().lay(take)
        self.states = {name: take(*form) for name, form in self._states.items()}

    def view(self, tensor: Tensor, space: Space, part: Part | None = None) -> Tensor:
        """A vector of values of a space in the shape that it has beside the whole, or what a part has of it."""
        whole = tensor.view(space.shape(self.part.shape))
        return whole if part is None else whole[part.within(space, whole.shape)]


class Wholes:
    """The whole tensors of a batch, all of whose parts lie on the same processes."""

    def __init__(self, kernel: Kernel, reach: Sharing, wholes: Sequence[Whole]) -> None:
        self._kernel, self._reach, self._wholes = kernel, reach, wholes

    def collect(self, place: int) -> None:
        """Have what a stage of narrow loops reads beside whole tensors."""
        sums = self._kernel.stages[place - 1].along if place else ()
        states = _loaded(self._kernel.stages[place])
        parts = [*self._parts(sums, states)]
        if not parts:
            return
        own = torch.cat([tensor.reshape(-1).to(torch.float64) for _, _, tensor, _ in parts])
        gathered = self._reach.gather_tensors(own, [self._size(parts, process) for process in range(self._reach.size)])
        for process, values in enumerate(gathered):
            taken = 0
            for whole, space, _, node in parts:
                target = whole.view(self._target(whole, node), space, whole.part.of(process))
                found = values[taken : taken + target.numel()].view(target.shape)
                taken += target.numel()
                self._put(target, found, node)

    def gathered_bytes(self) -> int:
        """How many bytes `collect` takes at most: the values here twice, and those of all twice.

        Process groups send a row that is padded, have all of them in a row of their own, and copy them to each one's.
        """
        most = 0
        for place, stage in enumerate(self._kernel.stages):
            parts = [*self._parts(self._kernel.stages[place - 1].along if place else (), _loaded(stage))]
            if stage.narrow and parts:
                sizes = [self._size(parts, process) for process in range(self._reach.size)]
                most = max(most, sizes[self._reach.own] + (1 + 2 * self._reach.size) * max(sizes))
        return most * torch.float64.itemsize

    def _parts(self, sums: Sequence[Node], states: Sequence[str]) -> Iterator[tuple[Whole, Space, Tensor, Node | str]]:
        for whole in self._wholes:
            for node in sums:
                kept = whole.local.tensors[self._kernel.name_of[node]]
                if node.space is COLUMNS:
                    kept = combined(kept, whole.local.sides, by_size=kind_of(node).by_size)
                whole.tensors[self._kernel.name_of[node]].zero_()
                yield whole, node.space, kept, node
            for name in states:
                yield whole, whole.spaces[name], whole.own[name], name

    def _size(self, parts: Sequence[tuple[Whole, Space, Tensor, Node | str]], process: int) -> int:
        sizes = (
            whole.view(self._target(whole, node), space, whole.part.of(process)).numel()
            for whole, space, _, node in parts
        )
        return sum(sizes)

    def _target(self, whole: Whole, node: Node | str) -> Tensor:
        return whole.states[node] if isinstance(node, str) else whole.tensors[self._kernel.name_of[node]]

    def _put(self, target: Tensor, found: Tensor, node: Node | str) -> None:
        if isinstance(node, str):
            target.copy_(found)
        elif kind_of(node).by_size:
            target.copy_(target.maximum(found))
        else:
            target.add_(found)

    def give_back(self, place: int) -> None:
        """Have the parts here know what the stage has kept and stored for their rows and columns."""
        stage = self._kernel.stages[place]
        kept = [node for loop in stage.narrow for node in (*loop.values, *loop.reductions)]
        stored = [name for loop in stage.narrow for name in loop.stores]
        for whole in self._wholes:
            for node in kept:
                name = self._kernel.name_of[node]
                own = whole.view(whole.tensors[name], node.space, whole.part)
                whole.local.tensors[name].view(own.shape).copy_(own)
            for name in stored:
                own = whole.view(whole.states[name], whole.spaces[name], whole.part)
                whole.own[name].copy_(own.reshape(whole.own[name].shape))


def _loaded(stage: Stage) -> list[str]:
    roots = [root for loop in stage.narrow for root in loop.roots]
    return [
        *dict.fromkeys(node.label for node in walk(roots, into_reductions=True) if node.op in LOADS and not node.varies)
    ]
