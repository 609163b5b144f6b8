"""Formats that were asked for, and cannot be had of a rule, of its numbers, or of a weight."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from neon.arguments import plain
from neon.engine.program.formats import PARAMETER, named
from neon.engine.program.formats.blocks import scale_name
from neon.engine.program.graph import load, walk
from neon.engine.program.options import AVERAGE
from neon.engine.program.signs import never_negative, signed_by
from neon.engine.program.spaces import PAIRS
from neon.engine.program.trace import Program
from neon.engine.settings import Settings
from neon.engine.tensors.storage import Storage
from neon.messages import listed, quoted, shortened


def check_states(storage: Storage, program: Program, known: Collection[str]) -> None:
    """Refuse a format for a state that the rule does not have, or that cannot be in it.

    `known` are states that it has with other values, such as a buffer where there is momentum.
    """
    for name, form in () if isinstance(storage.states, str) else dict(storage.states or ()).items():
        if name not in program.states and name not in known:
            raise ValueError(
                f"state_dtype names a state {quoted(name)}; {shortened(program.name)} keeps "
                f"{listed(program.states)}. Fix the spelling or remove the key."
            )
        kept = program.states.get(name)
        if name in program.own_numbers:
            raise ValueError(
                f"state_dtype names {quoted(name)}; that is one number of each tensor, which is float64. Leave it out."
            )
        if kept is not None and kept.of in PAIRS:
            raise ValueError(
                f"state_dtype names {quoted(name)}; that is one of {kept.of}, which functions of matrices take in "
                "float32, or in float64 of float64 parameters. Leave it out."
            )
        if (
            (name == AVERAGE or (kept is not None and kept.starts_as_weight))
            and form != PARAMETER
            and named(form).dtype.itemsize < 2
        ):
            raise ValueError(
                f"state_dtype[{name!r}] must be 'float32', 'bfloat16' or 'float16': 8 bits are too few of a "
                f"weight. Received: {form!r}."
            )
    taken = [name for name in program.states if scale_name(name) in program.states]
    if taken and storage.in_blocks:
        raise ValueError(
            f"The rule {program.name} has a state {scale_name(taken[0])!r}, as the scales of {taken[0]!r} in 8 "
            "bits are called. Choose another name, or state_dtype='bfloat16'."
        )


def check_signs(
    storage: Storage, program: Program, given: Callable[[Program], Sequence[Any]], values: Mapping[str, Any]
) -> None:
    """Refuse negative numbers of a rule where they may turn a state negative that has no bit for a sign.

    `given` are the numbers that the program reads, `values` those of its group, at which states may start.
    """
    unsigned = never_negative(program)
    if not storage.in_blocks or not unsigned:
        return
    signed = signed_by(program) & {*program.keywords}
    read = [(name, value) for (name, _), value in zip(program.places, given(program), strict=True) if name in signed]
    starts = [str(state.start) for name, state in program.states.items() if name in unsigned and state.starts_at_value]
    for name, number in (*read, *((start, values[start]) for start in starts)):
        value = number.item() if isinstance(number, Tensor) and number.device.type == "cpu" else plain(number)
        if isinstance(value, (int, float)) and value < 0:
            raise ValueError(
                f"{name} must be at least 0 where states are in 8 bits: of states that look as if they could not "
                f"be negative, no sign is kept. Received: {name}={value!r}. Use state_dtype='bfloat16'."
            )


def check_weight(settings: Settings, name: str, param: Tensor) -> None:
    """Refuse a weight of 16 bits where the others are needed and not kept."""
    storage, view = settings.storage, settings.view
    if storage.split and param.dtype == torch.float16:
        raise TypeError(
            f"Parameter {quoted(name)} is float16; master='split' keeps the other bits of bfloat16 weights alone. "
            "Keep the model in bfloat16, or use stochastic_round=True."
        )
    if param.dtype.itemsize >= 4 or storage.splits(param):
        return
    if view is not None and load("w") in walk(view.outputs.values()):
        raise TypeError(
            f"Parameter {quoted(name)} is {param.dtype}: what it is at evaluation ({shortened(view.name)}) is computed "
            "from it, and 16 bits are too few. Use master='split' with bfloat16, or float32 weights."
        )
    if settings.width is None and (numbers := _of_distance(settings.program)):
        raise TypeError(
            f"Parameter {quoted(name)} is {param.dtype}: {listed(numbers)} of {shortened(settings.program.name)} go by "
            "how far weights have moved, and to nearest they would not move at first. Use stochastic_round=True, "
            "or master='split' with bfloat16."
        )


def _of_distance(program: Program) -> list[str]:
    """The numbers that persist which are made of weights and of weights of before."""
    before = {load(name) for name, state in program.states.items() if state.starts_as_weight}
    below = {name: {*walk([value])} for name, value in program.new_numbers.items()}
    return [name for name, nodes in below.items() if load("w") in nodes and nodes & before]
