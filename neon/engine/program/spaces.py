"""Spaces: what there is one value for, from the numbers of a step down to single elements; and scopes of sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Scope:
    """The tensors over which a sum goes; `level` is the place of its norm among those that gradients are clipped by."""

    name: str
    level: int | None = None

    def __str__(self) -> str:
        return self.name if self.level is None else f"{self.name}[{self.level}]"


def _one(_: Sequence[int]) -> Shape:
    return ()


@dataclass(frozen=True)
class Space(Scope):
    """What there is one value for.

    `shape` gives the shape of such a tensor beside a weight's; `axes` are those along which its values differ.
    """

    shape: Callable[[Sequence[int]], Shape] = _one
    axes: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return self.name

    @property
    def lost(self) -> tuple[int, ...]:
        """The dimensions, from the last one, along which there is one value."""
        return tuple(dim for axis, dim in (("row", -2), ("column", -1)) if axis not in self.axes)

    @property
    def plural(self) -> str:
        """What there are several of."""
        return "the elements" if self is ELEMENT else f"the {self.name}"

    @property
    def is_narrow(self) -> bool:
        """Whether a tensor has several of it, and fewer than elements."""
        return TENSOR.axes < self.axes < ELEMENT.axes


# The host's numbers; a tensor with all of its shards; the tensors of a parameter group; those of an optimizer.
STEP, GROUP, OPTIMIZER = Space("step"), Space("group"), Space("optimizer")
TENSOR = Space("tensor", axes=frozenset(["tensor"]))
# Of the last two dimensions of a tensor: its matrices, with their rows and their columns.
MATRIX = Space("matrix", shape=lambda shape: (*shape[:-2], 1, 1), axes=TENSOR.axes | {"matrix"})
ROWS = Space("rows", shape=lambda shape: (*shape[:-1], 1), axes=MATRIX.axes | {"row"})
COLUMNS = Space("columns", shape=lambda shape: (*shape[:-2], 1, *shape[-1:]), axes=MATRIX.axes | {"column"})
ELEMENT = Space("element", shape=tuple, axes=ROWS.axes | COLUMNS.axes)
# A number for each pair of rows, or of columns, of a matrix: matrices that calls work on, and nobody else.
ROW_PAIRS = Space("pairs of rows", axes=ROWS.axes | {"other row"})
COLUMN_PAIRS = Space("pairs of columns", axes=COLUMNS.axes | {"other column"})
PAIRS = (ROW_PAIRS, COLUMN_PAIRS)

_BY_AXES = {space.axes: space for space in (STEP, TENSOR, MATRIX, ROWS, COLUMNS, ELEMENT, *PAIRS)}
# The axis along which a reduction over a space of a tensor goes.
_ALONG = {ROWS: "column", COLUMNS: "row"}


def joined(spaces: Iterable[Space]) -> Space:
    """The space of what is computed from values of these: of rows and columns together, elements.

    Raises `TypeError` where there is none: values of pairs go with numbers and with each other alone.
    """
    spaces = [*spaces]
    found = _BY_AXES.get(frozenset().union(*(space.axes for space in spaces)))
    if found is None:
        together = ", ".join(dict.fromkeys(space.plural for space in spaces if space is not STEP))
        raise TypeError(f"A rule cannot combine values of {together}, one by one: call a function of matrices on them.")
    return found


def reduced(over: Scope, operands: Space) -> Space | None:
    """The space of a reduction; None where its operands have one value only of what it goes over.

    What does not vary is taken once for each element.
    """
    operands = ELEMENT if operands is STEP else operands
    if (along := _ALONG.get(over)) is None:  # type: ignore[call-overload]
        return STEP if operands is ELEMENT else None
    return _BY_AXES[operands.axes - {along}] if along in operands.axes else None
