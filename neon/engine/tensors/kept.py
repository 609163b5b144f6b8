"""The tensors that an optimizer keeps of a parameter: found where they lie, or new ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
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


class Keeper:
    """Finds and makes what is kept of parameters of one kind, of one group.

    `values` are those of the group, at which states may start. What is one number of the tensor lies where it is
    computed with, in float64: another tensor takes the place of one that does not.

    Where `param` is a part of a parameter, `size` counts the elements of the whole, and `blocks` says whether parts are
    of whole blocks; where not, states that would be in blocks are float32. `matrices` are those of a rule of matrices.
    `here` says the shape of what is here of a space, and its first row, where these do not go by the part alone.
    """

    def __init__(
        self,
        storage: Storage,
        program: Program,
        param: Tensor,
        values: Mapping[str, Any],
        *,
        size: int | None = None,
        blocks: bool = True,
        matrices: Matrices | None = None,
        here: Callable[[Space], tuple[tuple[int, ...], int]] | None = None,
    ) -> None:
        self._program, self._values, self._split = program, values, storage.splits(param)
        self._dtypes = {name: storage.dtype_of(name, program, param, size, blocks) for name in program.states}
        self._slots: dict[tuple[Any, ...], tuple[Slot, ...]] = {}
        seen = matrices if program.calls else None
        self._here = here or (lambda space: (shape_of(space, param.shape, seen), 0))
        self._starts = [(slot, self._start_of(slot)) for slot in self._slots_in({})]

    def tensors(self, param: Tensor, state: Mapping[str, Any]) -> Kept:
        """The tensors of a parameter by their slots: as they lie in `state`, with those that it lacks as they start."""
        if not state:
            return {slot: start(param) for slot, start in self._starts}
        return {slot: self._tensor(slot, param, state) for slot in self._slots_in(state)}

    def _slots_in(self, state: Mapping[str, Any]) -> tuple[Slot, ...]:
        """The slots of a state, whose formats are those of what it has, and of new states where it lacks some."""
        dtypes = tuple(
            getattr(state[name], "dtype", None)
            if name in state and self._program.states[name].of is not TENSOR
            else dtype
            for name, dtype in self._dtypes.items()
        )
        if dtypes not in self._slots:
            self._slots[dtypes] = slots_of(self._program, dtypes, split=self._split, values=self._values)
        return self._slots[dtypes]

    def _tensor(self, slot: Slot, param: Tensor, state: Mapping[str, Any]) -> Tensor:
        if slot.space is TENSOR and slot.name in state:
            return _number(state[slot.name], slot.dtype, param.device)
        return self._start_of(slot)(param) if _is_new(slot, state) else at(state, slot.path)

    def _start_of(self, slot: Slot) -> Callable[[Tensor], Tensor]:
        """What makes a tensor as it starts: of pairs a number times the identity, or rows of that from one on."""
        start, dtype = slot.start, slot.dtype
        if isinstance(start, str):
            return lambda param: param.detach().to(dtype, copy=True)
        if slot.space is TENSOR:
            return lambda param: _number(start, dtype, param.device)
        if slot.space is ELEMENT:
            if start == 0 and math.copysign(1, start) > 0:  # for which torch is quicker
                return partial(torch.zeros_like, dtype=dtype, requires_grad=False)
            return partial(torch.full_like, fill_value=start, dtype=dtype, requires_grad=False)
        shape, first = self._here(slot.space)

        def full(param: Tensor) -> Tensor:
            made = torch.full(shape, start, dtype=dtype, device=param.device)
            return made.triu_(first).tril_(first) if slot.space in PAIRS else made

        return full


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
