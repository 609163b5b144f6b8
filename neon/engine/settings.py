"""What a plan is told: the settings of groups of tensors, and each tensor with its states."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import Any, NamedTuple, Protocol, cast

from torch import Tensor

from neon.engine.program.options import MOST, OF_SHAPES, OF_SIDES
from neon.engine.program.slots import Slot
from neon.engine.program.spaces import GROUP, PAIRS, Space
from neon.engine.program.trace import Program
from neon.engine.tensors.alike import UNKNOWN, Form
from neon.engine.tensors.storage import AS_COMPUTED, Storage
from neon.engine.tensors.weight_matrices import ONE_MATRIX, Matrices, shape_of


def holds_of(shape: Sequence[int], matrices: Matrices, values: Mapping[str, Any]) -> dict[str, bool]:
    """What a rule may ask of a tensor: whether it is a matrix, and has sides of at most the `max_size` of its group."""
    found: dict[str, bool] = dict.fromkeys(OF_SHAPES, len(shape) > 1)
    if len(shape) > 1:
        _, *sides = matrices.shapes(shape)[0]
        few = (side <= values.get(MOST, math.inf) for side in sides)
        found |= dict(zip(OF_SIDES, few, strict=True))
    return found


def held_by_shapes(asks: Sequence[str]) -> list[tuple[bool, ...]]:
    """What may hold of tensors, of what is asked, if not all of it does: of what is no matrix, nothing."""
    every = [held for held in product((True, False), repeat=len(asks)) if not all(held)]
    of_matrices = [name not in OF_SIDES for name in asks]
    whole = [all(h for h, whole in zip(held, of_matrices, strict=True) if whole) for held in every]
    return [held for held, is_matrix in zip(every, whole, strict=True) if is_matrix or not any(held)]


@dataclass(eq=False)
class Settings:
    """What the tensors of one group share: program, numbers (read anew at each step), rounding, norms.

    Where the rule `asks` something of shapes, `program` is that of a tensor of which all of it holds, and `others` are
    those of others, by what holds.
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
    asks: tuple[str, ...] = ()
    others: Mapping[tuple[bool, ...], Program] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The value that programs are chosen by, as it is now: `values` may be a group, which changes.
        self._most = self.values.get(MOST) if {*OF_SIDES} & {*self.asks} else None

    @property
    def programs(self) -> tuple[Program, ...]:
        """The programs of its tensors."""
        return (self.program, *dict.fromkeys(self.others.values()))

    def program_of(self, param: Tensor | Part, matrices: Matrices | None = None) -> Program:
        """The program of a whole tensor."""
        if not self.others:
            return self.program
        holds = holds_of(param.shape, matrices or ONE_MATRIX, self.values)
        return self.others.get(tuple(holds[name] for name in self.asks), self.program)

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
        return (self.programs, self.scopes, self.width, self.seed, self.storage, self._most) == (
            other.programs, other.scopes, other.width, other.seed, other.storage, other._most,
        )  # fmt: skip


class Reach(Protocol):
    """The processes that share a sum; `alike` says whether they list the same parameters in the same order."""

    alike: bool

    def gather(self, values: list[float]) -> list[list[float]]:
        """The values of every process, this one's among them, in an order that is the same for all."""
        ...


class Sharing(Reach, Protocol):
    """The processes that hold the parts of each tensor, or of which each has the whole."""

    @property
    def size(self) -> int:
        """How many they are."""
        ...

    @property
    def own(self) -> int:
        """The number of this process among them."""
        ...

    def gather_tensors(self, values: Tensor, sizes: Sequence[int]) -> list[Tensor]:
        """The vectors of every process, of which the sizes are known."""
        ...

    def cut(self, length: int) -> Sequence[tuple[int, int]]:
        """What each process has of a dimension that is cut over all of them: where it begins, and its length."""
        ...

    def exchange(self, sent: Tensor, counts: Sequence[int], taken: Tensor, counts_taken: Sequence[int]) -> None:
        """Send each process its part of a vector, and take what it has for this one; parts are in their order."""
        ...

    def spread(self, parts: Sequence[Tensor]) -> None:
        """Have each process know the part of every one; here that of this process is filled."""
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
    tensors, by slots. `matrices` are those that the whole parameter is made of, for a rule of matrices, and `sharers`
    who share out the work on matrices of which each of them has the whole. A plan finds the `form`.
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
    matrices: Matrices | None = None
    sharers: Sharing | None = None
    form: Form = UNKNOWN

    def shape_of(self, space: Space) -> tuple[int, ...]:
        """The shape of what is here of a tensor with one value for each of a space."""
        return what_is_here(space, self.param, self.part, self.reach, self.matrices)[0]


def what_is_here(
    space: Space, param: Tensor, part: Part | None, reach: Reach | None, matrices: Matrices | None
) -> tuple[tuple[int, ...], int]:
    """The same of a parameter, or of a part of one; of whole pairs each process has some rows, from a first one on.

    Where the matrices are a stack, it has some of these, each from its first row on.
    """
    if part is None or space not in PAIRS:
        return shape_of(space, param.shape, matrices), 0
    count, *others = shape_of(space, part.shape, matrices)
    first, rows = cast("Sharing", reach).cut(count)[part.own]
    return (rows, *others), first if len(others) == 1 else 0
