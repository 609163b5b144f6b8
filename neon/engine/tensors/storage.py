"""Storage: in which formats the states of a parameter are to be kept, and its weight."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neon.engine.program.formats import PARAMETER, named
from neon.engine.program.formats.blocks import scale_name
from neon.engine.program.options import AVERAGE
from neon.engine.program.signs import never_negative
from neon.engine.program.slots import Slot, slots_of
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
        """Whether some states are to be in formats that encode numbers in blocks."""
        wanted = [self.states] if isinstance(self.states, str) else dict(self.states or ()).values()
        return any(name is not None and name != PARAMETER and named(name).block > 1 for name in wanted)

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
            if name == AVERAGE and form != PARAMETER and named(form).block > 1:
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
        if wanted is None or (param.numel() if size is None else size) < SMALL:
            return torch.float32
        form = named(wanted, never_negative=state in never_negative(program))
        return form.dtype if blocks or form.block == 1 else torch.float32

    def slots(self, program: Program, param: Tensor, states: Sequence[Any]) -> tuple[Slot, ...]:
        """The slots of a parameter whose states are these tensors."""
        return slots_of(program, [getattr(state, "dtype", None) for state in states], split=self.splits(param))


# States in the precision of the arithmetic, weights in their own.
AS_COMPUTED = Storage()
