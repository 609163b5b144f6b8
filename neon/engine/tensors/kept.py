"""The tensors that an optimizer keeps of a parameter: found where they lie, or new ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from neon.engine.program.slots import Slot, at, slots_of
from neon.engine.program.spaces import ELEMENT
from neon.engine.program.trace import Program
from neon.engine.tensors.storage import Storage

Kept = dict[Slot, Tensor]


def kept_tensors(
    storage: Storage,
    program: Program,
    param: Tensor,
    state: Mapping[str, Any],
    *,
    size: int | None = None,
    blocks: bool = True,
) -> Kept:
    """The tensors of a parameter by their slots: as they lie in `state`, with those that it lacks as they start.

    Where `param` is a part of a parameter, `size` counts the elements of the whole, and `blocks` says whether parts are
    of whole blocks; where not, states that would be in blocks are float32.
    """
    dtypes = [
        getattr(state[name], "dtype", None) if name in state else storage.dtype_of(name, program, param, size, blocks)
        for name in program.states
    ]
    slots = slots_of(program, dtypes, split=storage.splits(param))
    return {slot: _new(slot, param) if _is_new(slot, state) else at(state, slot.path) for slot in slots}


def _is_new(slot: Slot, state: Mapping[str, Any]) -> bool:
    """Whether a state lacks this tensor; an auxiliary one that a state lacks would be a fault."""
    owner = slot.auxiliary_of
    return slot.name not in state if owner is None else owner not in state and at(state, slot.path) is None


def _new(slot: Slot, param: Tensor) -> Tensor:
    """A tensor as it starts."""
    if isinstance(slot.start, str):
        return param.detach().to(slot.dtype, copy=True)
    if slot.space is ELEMENT:
        return torch.full_like(param, slot.start, dtype=slot.dtype, requires_grad=False)
    return torch.full(slot.space.shape(param.shape), slot.start, dtype=slot.dtype, device=param.device)
