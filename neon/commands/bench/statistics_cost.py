"""Statistics: what a step takes that is looked at, beside one that is not, in three formats."""

from __future__ import annotations

import torch

from neon.commands.bench.few_bits import FORMATS
from neon.commands.bench.results import Line, Result, Settings
from neon.commands.bench.step_alone import SMALL, attach, states_of, take_turns
from neon.commands.bench.tensor_shapes import SHAPES
from neon.commands.bench.timing import Contender
from neon.commands.bench.work import AgreementError, after_steps, make_work

# What each is called in tables; that of float32 is what is aimed at.
MEASURED = {"float32": "of a plain step", "to nearest": "bfloat16, of plain", "8-bit states": "8-bit states, of plain"}


def measure_statistics(line: Line, settings: Settings) -> Result:
    """A step that is looked at, by the time of one that is not, over the same tensors."""
    _check(line)
    results = {name: _measure(line, settings, name) for name in MEASURED}
    first = results.pop("float32")
    for name, result in results.items():
        first.figures.update(result.figures)
        first.details[name] = result.seconds
    return first


def _measure(line: Line, settings: Settings, name: str) -> Result:
    form = FORMATS[name]
    work = make_work(SHAPES[line.shape], form.dtype, states_of(line.rule), line.device)
    # The first shares its places with the second: of blocks both have the same scales.
    looked, plain = (attach(line, work, statistics=statistics, **form.options) for statistics in (True, False))
    result = take_turns(line, settings, work, {"looked at": Contender(looked.step), "plain": Contender(plain.step)})
    result.figures[MEASURED[name]] = result.medians["looked at"] / result.medians["plain"]
    return result


def _check(line: Line) -> None:
    """Both end at the same weights."""
    ends = []
    for statistics in (True, False):
        work = make_work(SMALL, device=line.device)
        ends.append(after_steps(work, attach(line, work, statistics=statistics).step, 3))
    if not torch.equal(*ends):
        raise AgreementError("a step that is looked at ends at other weights")
