"""Storage: in which formats the states of a parameter are kept, and the tensors that these formats need."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neon.arguments import PARAMETER
from neon.engine.program.declared import State
from neon.engine.program.formats.blocks import BLOCK, BLOCK_CODECS, scale_name
from neon.engine.program.options import AVERAGE
from neon.engine.program.signs import never_negative
from neon.engine.program.trace import Program
from neon.messages import listed, quoted, shortened

# Below so many elements a state is float32 whatever was asked for: there is nothing to save.
SMALL = 4096


@dataclass(frozen=True)
class Storage:
    """What an optimizer asks for: a format of all states, or of some in pairs with names; whether weights are split."""

    states: str | tuple[tuple[str, str], ...] | None = None
    split: bool = False

    @property
    def in_blocks(self) -> bool:
        """Whether some states are to be in blocks of 8 bits."""
        return "int8" in ([self.states] if isinstance(self.states, str) else dict(self.states or ()).values())

    def splits(self, param: Tensor) -> bool:
        """Whether a weight has its low bits beside it: of those formats that lose them, bfloat16."""
        return self.split and param.dtype == torch.bfloat16

    def check_states(self, program: Program, known: Collection[str]) -> None:
        """Refuse a format for a state that the rule does not have, or that cannot be in it.

        `known` are states that it has with other values, such as a buffer where there is momentum.
        """
        for name, form in () if isinstance(self.states, str) else dict(self.states or ()).items():
            if name not in program.states and name not in known:
                raise ValueError(
                    f"state_dtype names a state {quoted(name)}; {shortened(program.name)} keeps "
                    f"{listed(program.states)}. Fix the spelling or remove the key."
                )
            if form == "int8" and name == AVERAGE:
                raise ValueError(
                    f"state_dtype[{name!r}] must be 'float32', 'bfloat16' or 'float16': 8 bits are too few of a "
                    f"weight. Received: {form!r}."
                )
        taken = [name for name in program.states if scale_name(name) in program.states]
        if taken and self.in_blocks:
            raise ValueError(
                f"The rule {program.name} has a state {scale_name(taken[0])!r}, as the scales of {taken[0]!r} in 8 "
                "bits are called. Choose another name, or state_dtype='bfloat16'."
            )

    def check_signs(self, program: Program, given: Callable[[], Sequence[Any]]) -> None:
        """Refuse negative numbers of a rule where they may turn a state negative that has no bit for a sign."""
        if not self.in_blocks or not never_negative(program):
            return
        for (name, _), value in zip(program.places, given(), strict=True):
            if name in program.keywords and isinstance(value, (int, float)) and value < 0:
                raise ValueError(
                    f"{name} must be at least 0 where states are in 8 bits: of states that look as if they could not "
                    f"be negative, no sign is kept. Received: {name}={value!r}. Use state_dtype='bfloat16'."
                )

    def check_weight(self, name: str, param: Tensor) -> None:
        """Refuse a weight whose other bits cannot be kept beside it, though that was asked for."""
        if self.split and param.dtype == torch.float16:
            raise TypeError(
                f"Parameter {quoted(name)} is float16; master='split' keeps the other bits of bfloat16 weights alone. "
                "Keep the model in bfloat16, or use stochastic_round=True."
            )

    def companions(self, states: Sequence[Tensor], param: Tensor) -> int:
        """How many tensors stand beside these states."""
        return sum(getattr(state, "dtype", None) in BLOCK_CODECS for state in states) + self.splits(param)

    def dtype_of(
        self, state: str, program: Program, param: Tensor, size: int | None = None, blocks: bool = True
    ) -> torch.dtype:
        """The format of a new state. `size` and `blocks` are of a whole parameter of which `param` is a part.

        One format for all states is not that of an average of weights, which takes the place of weights.
        """
        if isinstance(self.states, str):
            wanted = None if program.states[state].starts_as_weight else self.states
        else:
            wanted = dict(self.states or ()).get(state)
        if param.dtype == torch.float64:
            return torch.float64
        if wanted == PARAMETER:  # float16 too: in its range a mean of squares would vanish
            wanted = "bfloat16" if param.element_size() == 2 and not self.splits(param) else None
        if wanted is None or (param.numel() if size is None else size) < SMALL or (wanted == "int8" and not blocks):
            return torch.float32
        if wanted == "int8":
            return torch.uint8 if state in never_negative(program) else torch.int8
        return getattr(torch, wanted)


# States in the precision of the arithmetic, weights in their own.
AS_COMPUTED = Storage()


def new_state(state: State, dtype: torch.dtype, param: Tensor) -> tuple[Tensor, Tensor | None]:
    """A new state, and the scales of its blocks if any."""
    codec = BLOCK_CODECS.get(dtype)
    if state.starts_as_weight:
        return param.detach().to(dtype, copy=True), None
    value = state.number
    if codec is None:
        return torch.full_like(param, value, dtype=dtype, requires_grad=False), None
    code = (codec.largest_code | (0x80 if codec.signed and value < 0 else 0)) if value else 0
    stored = torch.full_like(param, code, dtype=torch.uint8, requires_grad=False).view(dtype)
    scales = torch.full(scale_shape(param.shape), abs(value) / codec.largest, dtype=torch.float32, device=param.device)
    return stored, scales


def scale_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """A scale for each block; by rows, as the parameter may be sharded, where blocks do not reach over them."""
    rows, row = (shape[0], torch.Size(shape[1:]).numel()) if len(shape) > 1 else (1, torch.Size(shape).numel())
    if len(shape) > 1 and row % BLOCK == 0:
        return rows, row // BLOCK
    return (-(-rows * row // BLOCK),)


def complete(
    storage: Storage,
    program: Program,
    param: Tensor,
    kept: Mapping[str, Any],
    *,
    size: int | None = None,
    blocks: bool = True,
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """The states of a parameter by name, and what stands beside them in the order of a kernel: kept, else new.

    `kept` has states by name, their scales as a dict under `scales`, and `low_bits` of the weight. Where
    `param` is a part of a parameter, `size` counts the elements of the whole, and `blocks` says whether parts are
    of whole blocks; where not, states that would be in blocks are float32.
    """
    states, scales = {}, dict(kept.get("scales", {}))
    for name, state in program.states.items():
        if name in kept:
            states[name] = kept[name]
        else:
            states[name], scales[name] = new_state(state, storage.dtype_of(name, program, param, size, blocks), param)
    companions: list[Any] = [scales.get(name) for name, state in states.items() if state.dtype in BLOCK_CODECS]
    if storage.splits(param):
        new = torch.zeros_like(param, requires_grad=False)
        companions.append(kept.get("low_bits", new))
    return states, companions
