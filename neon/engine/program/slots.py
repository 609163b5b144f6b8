"""Slots: the one table of every tensor that an optimizer keeps of a parameter.

Making, checking, loading, saving, sharding, addressing and printing go through it: nobody knows a tensor by its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from neon.engine.program.declared import Space, State
from neon.engine.program.formats import FORMATS
from neon.engine.program.formats.format import Format
from neon.engine.program.formats.split import SPLIT
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


@dataclass(frozen=True)
class Slot:
    """One tensor: its name in a kernel, where it lies in `state[p]`, what it is kept as and has one number for.

    `start` is what stands for the number that it starts at, or "weight"; `block` numbers of it are encoded together.
    `beside` names the tensor whose format needs it, None of a state.
    """

    name: str
    path: tuple[str, ...]
    dtype: torch.dtype
    space: Space
    start: float | str
    block: int = 1
    beside: str | None = None


def slots_of(program: Program, states: Sequence[torch.dtype | None], *, split: bool = False) -> tuple[Slot, ...]:
    """The slots of a program whose states are kept as these dtypes, in a kernel's order: states, then auxiliary ones.

    A dtype that is no format's is taken as it is: what cannot be served is refused elsewhere, by name.
    """
    return _slots(tuple(program.states.items()), tuple(states), split)


@lru_cache(maxsize=256)
def _slots(states: tuple[tuple[str, State], ...], dtypes: tuple[Any, ...], split: bool) -> tuple[Slot, ...]:
    found, beside = [], []
    for (name, state), dtype in zip(states, dtypes, strict=True):
        form = FORMATS.get(dtype)
        own, *others = (state.start,) if form is None or state.starts_as_weight else form.stored(state.number)
        found.append(Slot(name, (name,), dtype, state.of, own, 1 if form is None else form.block))
        auxiliary = () if form is None else form.auxiliary(name)
        beside += [Slot(a.name, a.path, a.dtype, a.space, n, 1, name) for a, n in zip(auxiliary, others, strict=True)]
    beside += [Slot(a.name, a.path, a.dtype, a.space, 0.0, 1, "w") for a in (SPLIT.auxiliary("w") if split else ())]
    return (*found, *beside)


def auxiliary_paths(program: Program) -> set[tuple[str, ...]]:
    """Where tensors may lie that formats need beside the states and the weight, whatever these formats are."""
    beside = [a for name in program.states for form in FORMATS.values() for a in form.auxiliary(name)]
    return {a.path for a in (*beside, *SPLIT.auxiliary("w"))}


def at(kept: Mapping[str, Any], path: Sequence[str]) -> Any:
    """What lies at a path of a parameter's state, None where there is nothing."""
    found: Any = kept
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
