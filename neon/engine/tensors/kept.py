"""The tensors that an optimizer keeps of a parameter: found where they lie, or new ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from neon.engine.backends import serving
from neon.engine.program.slots import Slot, at, slots_of
from neon.engine.program.spaces import ELEMENT, PAIRS, TENSOR, Space
from neon.engine.program.trace import Program
from neon.engine.tensors.storage import Storage
from neon.engine.tensors.weight_matrices import Matrices, shape_of

Kept = dict[Slot, Tensor]


def kept_tensors(
    storage: Storage,
    program: Program,
    param: Tensor,
    state: Mapping[str, Any],
    values: Mapping[str, Any],
    *,
    size: int | None = None,
    blocks: bool = True,
    matrices: Matrices | None = None,
    here: Callable[[Space], tuple[tuple[int, ...], int]] | None = None,
) -> Kept:
    """The tensors of a parameter by their slots: as they lie in `state`, with those that it lacks as they start.

    `values` are those of its group, at which states may start. What is one number of the tensor lies where it is
    computed with, in float64: another tensor takes the place of one that does not.

    Where `param` is a part of a parameter, `size` counts the elements of the whole, and `blocks` says whether parts are
    of whole blocks; where not, states that would be in blocks are float32. `matrices` are those of a rule of matrices.
    `here` says the shape of what is here of a space, and its first row, where these do not go by the part alone.
    """
    dtypes = [
        getattr(state[name], "dtype", None)
        if name in state and declared.of is not TENSOR
        else storage.dtype_of(name, program, param, size, blocks)
        for name, declared in program.states.items()
    ]
    slots = slots_of(program, dtypes, split=storage.splits(param), values=values)
    seen = matrices if program.calls else None
    here = here or (lambda space: (shape_of(space, param.shape, seen), 0))
    return {slot: _tensor(slot, param, state, here) for slot in slots}


def _tensor(
    slot: Slot, param: Tensor, state: Mapping[str, Any], here: Callable[[Space], tuple[tuple[int, ...], int]]
) -> Tensor:
    if slot.space is TENSOR:
        return _number(state.get(slot.name, slot.start), slot.dtype, param.device)
    return _new(slot, param, *here(slot.space)) if _is_new(slot, state) else at(state, slot.path)


def _number(value: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """One number of a tensor: on the device where a backend computes with it there, else with the host.

    What is no number stays as it is, to be refused by name.
    """
    there = device if serving(device).resident is not None else torch.device("cpu")
    if type(value) is Tensor and value.dim() == 0 and value.dtype == dtype and value.device == there:
        return value
    if not is_one_number(value):
        return value
    return torch.tensor(float(value), dtype=dtype, device="cpu").to(there)


def is_one_number(value: Any) -> bool:
    """Whether a value is a real number, or a tensor of one."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex() and value.dtype != torch.bool
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_new(slot: Slot, state: Mapping[str, Any]) -> bool:
    """Whether a state lacks this tensor; an auxiliary one that a state lacks would be a fault."""
    owner = slot.auxiliary_of
    return slot.name not in state if owner is None else owner not in state and at(state, slot.path) is None


def _new(slot: Slot, param: Tensor, shape: tuple[int, ...], first: int) -> Tensor:
    """A tensor as it starts: of pairs a number times the identity, of which this is a part from a row on."""
    if isinstance(slot.start, str):
        return param.detach().to(slot.dtype, copy=True)
    if slot.space is ELEMENT:
        return torch.full_like(param, slot.start, dtype=slot.dtype, requires_grad=False)
    made = torch.full(shape, slot.start, dtype=slot.dtype, device=param.device)
    return made.triu_(first).tril_(first) if slot.space in PAIRS else made
