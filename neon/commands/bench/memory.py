"""Peak memory beyond parameters, gradients and states, in a new process, whose peak nothing else raised."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from typing import Any

from neon.commands.bench import child
from neon.commands import machine
from neon.commands.bench.torch_peers import OPTIONS, torch_optimizers
from neon.commands.bench.tensor_shapes import SHAPES, Shapes
from neon.commands.bench.lines import Line, Settings
from neon.commands.bench.step_alone import attach
from neon.commands.bench.timing import Measured
from neon.commands.bench.work import make_work


def measure_memory(line: Line, _: Settings) -> Measured:
    """Bytes a parameter: neon with each option, torch's configurations."""
    side = SHAPES[line.shape].tensors[0][0]
    watch = machine.Watch()
    extra = json.loads(child.run("neon.commands.bench.memory", line.rule, str(side)))
    return Measured({}, watch.busy_with_others(), extra)


def extra_memory(rule: str, side: int) -> dict[str, float]:
    """What a step takes at its peak; empty where the system does not tell."""
    shapes = Shapes(((side, side),) * 3, rounds=0)
    extra = {f"neon {option}": _peak(attach_and_step(Line("memory", rule, "", option)), shapes) for option in OPTIONS}
    for who in torch_optimizers(rule, make_work(Shapes(((1,),), rounds=0)).groups(1.0)):
        extra[who] = _peak(lambda work, who=who: torch_optimizers(rule, work.groups(1.0))[who].step, shapes)
    return extra


def attach_and_step(line: Line) -> Callable[[Any], Callable[[], Any]]:
    return lambda work: attach(line, work).step


def _peak(make_step: Callable[[Any], Callable[[], Any]], shapes: Shapes) -> float:
    """Two steps, then a third while the kernel keeps the peak. Tensors of 64 MB are given back when they are freed."""
    gc.collect()
    work = make_work(shapes)
    step = make_step(work)
    step()
    step()
    machine.forget_peak()
    before = machine.resident_bytes("VmRSS")
    step()
    return max(0, machine.resident_bytes("VmHWM") - before) / shapes.elements


if __name__ == "__main__":
    found = extra_memory(sys.argv[1], int(sys.argv[2])) if machine.LINUX else {}
    print(json.dumps(found))
