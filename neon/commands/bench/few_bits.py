"""Weights and states in few bits: what a step takes in each format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from neon.commands.bench.results import Line, Result, Settings
from neon.commands.bench.step_alone import SMALL, attach, compare_with_limit, states_of, take_turns
from neon.commands.bench.tensor_shapes import SHAPES
from neon.commands.bench.timing import Contender
from neon.commands.bench.work import AgreementError, after_steps, bytes_moved, flat, make_work


@dataclass(frozen=True)
class Format:
    """What weights are stored in, and the options of a rule that say the rest."""

    dtype: torch.dtype
    options: Mapping[str, Any] = field(default_factory=dict)


FORMATS = {
    "float32": Format(torch.float32),
    "16-bit states": Format(torch.float32, {"state_dtype": "bfloat16"}),
    "8-bit states": Format(torch.float32, {"state_dtype": "int8"}),
    "to nearest": Format(torch.bfloat16),
    "at random": Format(torch.bfloat16, {"stochastic_round": True}),
    "split": Format(torch.bfloat16, {"master": "split"}),
    "at random, 8-bit states": Format(torch.bfloat16, {"stochastic_round": True, "state_dtype": "int8"}),
}
# Of an update, by which weights may end apart after three steps: states are off by a unit of their format.
NEAR = {"16-bit states": 2.0**-8, "8-bit states": 2.0**-3}


def measure_rounding(line: Line, settings: Settings) -> Result:
    """bfloat16 weights and gradients with float32 states: rounded at random, to nearest, and split."""
    _check_rounding(line)
    result = _measure(line, settings, ("at random", "to nearest", "split"))
    medians = result.medians
    result.figures["of rounding to nearest"] = medians["at random"] / medians["to nearest"]
    result.figures["split of nearest"] = medians["split"] / medians["to nearest"]
    result.figures["split of the limit"] = result.details["shares_of_limit"]["split"]
    return result


def measure_states(line: Line, settings: Settings) -> Result:
    """float32 weights and gradients with states of 8, 16 and 32 bits."""
    _check_states(line)
    result = _measure(line, settings, ("8-bit states", "16-bit states", "float32"), clear=True)
    for bits in (8, 16):
        result.figures[f"{bits} of 32 bits"] = result.medians[f"{bits}-bit states"] / result.medians["float32"]
    return result


def _measure(line: Line, settings: Settings, names: Sequence[str], *, clear: bool = False) -> Result:
    """A step in formats that share weights and the places of states, which are zeroed before each turn if `clear`."""
    states = states_of(line.rule) + ("split" in names)
    work = make_work(SHAPES[line.shape], FORMATS[names[0]].dtype, states, line.device)
    attached = {name: attach(line, work, **FORMATS[name].options) for name in names}

    def clear_states() -> None:
        for place in chain(*work.states):
            place.zero_()

    # One format's states would be other numbers, or none, to another; zeros are zeros in all.
    steps = {name: Contender(optimizer.step, clear_states if clear else None) for name, optimizer in attached.items()}
    result = take_turns(line, settings, work, steps)
    moved = {name: bytes_moved(optimizer, work.params, line.option) for name, optimizer in attached.items()}
    compare_with_limit(result, work, moved)
    return result


def _trained(line: Line, name: str, steps: int) -> Tensor:
    """Where small weights end after some steps in a format."""
    work = make_work(SMALL, FORMATS[name].dtype, device=line.device)
    optimizer = attach(line, work, **FORMATS[name].options)
    return after_steps(work, optimizer.step, steps)


def _check_rounding(line: Line) -> None:
    """However it is rounded, a weight ends at one of two neighbours, 2⁻⁷ of it apart at the most."""
    nearest = _trained(line, "to nearest", 1)
    for name in ("at random", "split"):
        if not bool(((nearest - _trained(line, name, 1)).abs() <= 2**-7 * nearest.abs()).all()):
            raise AgreementError(f"bfloat16 {name} ends further from rounding to nearest than one unit")


def _check_states(line: Line) -> None:
    """The first step is the same whatever states are kept in; later ones come near."""
    first, third = ({name: _trained(line, name, steps) for name in ("float32", *NEAR)} for steps in (1, 3))
    update = (third["float32"] - flat(make_work(SMALL, device=line.device).params)).abs().max()
    for name, near in NEAR.items():
        if not torch.equal(first[name], first["float32"]):
            raise AgreementError(f"with {name} the first step is not that of float32")
        difference = float((third[name] - third["float32"]).abs().max() / update)
        if not difference < near:
            raise AgreementError(f"with {name} weights differ by {difference:.1e} of an update from those of float32")
