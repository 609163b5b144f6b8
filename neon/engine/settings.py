"""What a plan is told: the settings of groups of tensors, and each tensor with its states."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from neon.engine.program.slots import Slot
from neon.engine.program.spaces import GROUP, Space
from neon.engine.program.trace import Program
from neon.engine.tensors.matrix_parts import ONE_MATRIX, Matrices
from neon.engine.tensors.storage import AS_COMPUTED, Storage


@dataclass(eq=False)
class Settings:
    """What the tensors of one group share: program, numbers (read anew at each step), rounding, norms.

    Of tensors of fewer than two dimensions `of_vectors` is the program, where a rule has another for these.
    `scopes` names, for each norm that the gradients are clipped by, the set of tensors it is taken
    over: groups that give the same object share one norm. `view` is what a weight is at evaluation, where that is not
    the weight itself.
    """

    program: Program
    values: Mapping[str, Any]
    scopes: tuple[Hashable, ...] = ()
    width: int | None = None
    seed: int = 0
    storage: Storage = AS_COMPUTED
    view: Program | None = None
    of_vectors: Program | None = None

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs of its tensors."""
        return (self.program,) if self.of_vectors is None else (self.program, self.of_vectors)

    def program_of(self, param: Tensor) -> Program:
        """The program of a tensor."""
        return self.program if self.of_vectors is None or param.dim() > 1 else self.of_vectors

    def read(self, program: Program) -> list[float]:
        """The numbers of a program that belong to the group, in its order."""
        return [*map(float, self.given(program))]

    def given(self, program: Program) -> list[Any]:
        """The same as they were given, some perhaps as tensors."""
        values = self.values
        return [values[k] if i is None else values[k][i] for k, i in program.places]

    @cached_property
    def owners(self) -> dict[str, Hashable]:
        """What each number that persists belongs to: a group, or the optimizer of several."""
        kept = self.program.numbers_kept.items()
        return {name: (name, id(self.values if state.of == GROUP else self.scopes[-1])) for name, state in kept}

    def alike(self, other: Settings) -> bool:
        """Whether they differ in values at most, and not in what these mean."""
        return (self.programs, self.scopes, self.width, self.seed, self.storage) == (
            other.programs, other.scopes, other.width, other.seed, other.storage,
        )  # fmt: skip


class Reach(Protocol):
    """The processes that share a sum; `alike` says whether they list the same parameters in the same order."""

    alike: bool

    def gather(self, values: list[float]) -> list[list[float]]:
        """The values of every process, this one's among them, in an order that is the same for all."""
        ...


class Sharing(Reach, Protocol):
    """The `size` processes that hold the parts of each tensor."""

    size: int

    def gather_tensors(self, values: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """The vectors of every process, of which the sizes are known."""
        ...


class Shard(NamedTuple):
    """Which part of a tensor a process holds, for the random bits of its elements.

    From `offset` on, in the order of the whole; where the part is not one range of that order, `number`
    tells it from the other parts.
    """

    offset: int = 0
    number: int = 0


WHOLE = Shard()


@dataclass(frozen=True)
class Part:
    """Which elements of a whole tensor of a shape each process holds: a first one and a length for each dimension.

    `boxes` are those of all processes, in the order of their reach, of which this one's has the number `own`.
    """

    shape: tuple[int, ...]
    boxes: tuple[tuple[tuple[int, int], ...], ...]
    own: int

    def of(self, process: int) -> Part:
        """The part of another process."""
        return replace(self, own=process)

    @property
    def keeps_rows(self) -> bool:
        """Whether each process has all that is at one place of the first dimension."""
        return all(
            side == (0, length) for box in self.boxes for side, length in zip(box[1:], self.shape[1:], strict=True)
        )

    def flattened(self) -> Part:
        """The same of the matrix of the first dimension by all others, of which processes have whole rows."""
        columns = math.prod(self.shape[1:])
        boxes = tuple((box[0], (0, columns)) for box in self.boxes)
        return Part((self.shape[0], columns), boxes, self.own)

    def within(self, space: Space, shape: Sequence[int]) -> tuple[slice, ...]:
        """What the part has of a tensor of this shape, with one value for each of a space."""
        box = self.boxes[self.own]
        narrow = [dim for dim in space.lost if len(shape) + dim >= 0]
        box = [(0, 1) if dim - len(shape) in narrow else side for dim, side in enumerate(box)]
        return tuple(slice(first, first + length) for first, length in box)


@dataclass(eq=False, slots=True)
class Item:
    """One parameter with what its update needs; `step` is a 0-dim tensor that counts its updates.

    `count` is their exact number where one is known: it is believed if `step`, perhaps a float32, is its rounding.
    `reach` is given where other processes hold more of the parameter, or of the parameters beside it;
    `shard` says which part of the parameter this is, `part` where in it. `kept` are its states and auxiliary
    tensors, by slots; `matrices` says what of it is a matrix.
    """

    name: str
    param: Tensor
    kept: Mapping[Slot, Tensor]
    step: Tensor
    group: int
    index: int
    reach: Reach | None = None
    shard: Shard = WHOLE
    count: float | None = None
    part: Part | None = None
    matrices: Matrices = ONE_MATRIX
