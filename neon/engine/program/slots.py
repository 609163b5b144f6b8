"""Slots: the one table of every tensor that an optimizer keeps of a parameter.

Making, checking, loading, saving, sharding, addressing and printing go through it: nobody knows a tensor by its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from neon.engine.program.declared import WEIGHT, State
from neon.engine.program.formats import FORMATS
from neon.engine.program.formats.format import Format, Slot
from neon.engine.program.formats.split import SPLIT
from neon.engine.program.options import begun
from neon.engine.program.spaces import TENSOR
from neon.engine.program.trace import Program


@dataclass(frozen=True)
class Formats:
    """How the tensors of a kernel are kept: weight, gradient, states, and the rounding of the weight.

    `width` is the mantissa width that weights are rounded to at random, 0 for the format's own, None
    for rounding to nearest. States of less than 32 bits are always rounded at random. `split` says that
    a bfloat16 weight has its other 16 bits beside it.
    """

    w: torch.dtype
    g: torch.dtype
    states: tuple[torch.dtype, ...]
    width: int | None = None
    split: bool = False

    @property
    def compute(self) -> torch.dtype:
        """Arithmetic is float32, and float64 for float64 parameters."""
        return torch.float64 if self.w == torch.float64 else torch.float32

    @property
    def weight(self) -> Format:
        """The format of the weight."""
        return SPLIT if self.split else FORMATS[self.w]


def slots_of(
    program: Program,
    dtypes: Sequence[torch.dtype | None],
    *,
    split: bool = False,
    values: Mapping[str, Any] | None = None,
) -> tuple[Slot, ...]:
    """The slots of a program whose states are kept as these dtypes, in a kernel's order: states, then auxiliary ones.

    A dtype that is no format's is taken as it is: what cannot be served is refused elsewhere, by name. `values` are
    those of a group, at which states may start.
    """
    states = program.states.items() if values is None else [(n, begun(s, values)) for n, s in program.states.items()]
    return _slots(tuple(states), tuple(dtypes), split)


@lru_cache(maxsize=256)
def _slots(states: tuple[tuple[str, State], ...], dtypes: tuple[Any, ...], split: bool) -> tuple[Slot, ...]:
    found: list[Slot] = []
    auxiliary: list[Slot] = []
    for (name, state), dtype in zip(states, dtypes, strict=True):
        form = FORMATS.get(dtype)
        if form is None or state.starts_as_weight or state.of is TENSOR:
            found.append(Slot(name, (name,), dtype, state.of, WEIGHT if state.starts_as_weight else state.number))
        else:
            found.append(Slot(name, (name,), dtype, state.of, form.stored(state.number), form.block))
            auxiliary += form.auxiliary(name, state.number)
    return (*found, *auxiliary, *(SPLIT.auxiliary("w") if split else ()))


@lru_cache(maxsize=256)
def auxiliary_paths(program: Program) -> frozenset[tuple[str, ...]]:
    """Where tensors may lie that formats need beside the states and the weight, whatever these formats are."""
    auxiliary = [a for name in program.states for form in FORMATS.values() for a in form.auxiliary(name)]
    return frozenset(a.path for a in (*auxiliary, *SPLIT.auxiliary("w")))


def at(kept: Mapping[str, Any], path: Sequence[str]) -> Any:
    """What lies at a path of a parameter's state, None where there is nothing."""
    found: Any = kept
    for name in path:
        found = found.get(name) if isinstance(found, (dict, Mapping)) else None  # the first is quicker to ask
    return found
