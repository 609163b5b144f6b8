"""Storage: in which formats the states of a parameter are to be kept, and its weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neon.engine.program.formats import FORMATS, PARAMETER, named
from neon.engine.program.formats.format import Format
from neon.engine.program.signs import never_negative
from neon.engine.program.slots import Slot, slots_of
from neon.engine.program.spaces import PAIRS, TENSOR
from neon.engine.program.trace import Program

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

    def dtype_of(
        self, state: str, program: Program, param: Tensor, size: int | None = None, blocks: bool = True
    ) -> torch.dtype:
        """The dtype of a new state. `size` and `blocks` are of a whole parameter of which `param` is a part.

        What would be in blocks is float32 where parts, or the rows that a rule works by, would cut these.
        """
        form = self.form_of(state, program, param, size)
        return form.dtype if form.block == 1 or (blocks and not program.by_rows) else torch.float32

    def form_of(self, state: str, program: Program, param: Tensor, size: int | None = None) -> Format:
        """The format of a new state, where nothing would cut its blocks.

        One format for all states is not that of an average of weights, which takes the place of weights, nor of states
        of rows and columns, which are few. States of pairs are in the precision of the arithmetic, as functions of
        matrices take them. One number of a tensor is float64.
        """
        declared = program.states[state]
        if declared.of is TENSOR:
            return FORMATS[torch.float64]
        if declared.of in PAIRS:
            return FORMATS[torch.float64 if param.dtype == torch.float64 else torch.float32]
        if isinstance(self.states, str):
            wanted = None if declared.starts_as_weight or declared.of.is_narrow else self.states
        else:
            wanted = dict(self.states or ()).get(state)
        if param.dtype == torch.float64:
            return FORMATS[torch.float64]
        if wanted == PARAMETER:  # float16 too: in its range a mean of squares would vanish
            wanted = "bfloat16" if param.element_size() == 2 and not self.splits(param) else None
        if wanted is None or (param.numel() if size is None else size) < SMALL:
            return FORMATS[torch.float32]
        return named(wanted, never_negative=state in never_negative(program))

    def slots(self, program: Program, param: Tensor, states: Sequence[Any]) -> tuple[Slot, ...]:
        """The slots of a parameter whose states are these tensors."""
        return slots_of(program, [getattr(state, "dtype", None) for state in states], split=self.splits(param))


# States in the precision of the arithmetic, weights in their own.
AS_COMPUTED = Storage()
