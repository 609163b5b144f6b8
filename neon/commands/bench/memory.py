"""``python -m neon.commands.bench.memory memory|kept|matrices RULE SIDE|SHAPE`` prints what raises a peak, as JSON."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from neon.commands import machine
from neon.commands.bench.few_bits import FORMATS, Format
from neon.commands.bench.matrix_steps import MATRICES, torch_peer
from neon.commands.bench.results import Line
from neon.commands.bench.step_alone import attach
from neon.commands.bench.tensor_shapes import Shapes
from neon.commands.bench.torch_peers import OPTIONS, neon_optimizer, torch_optimizers
from neon.commands.bench.work import make_work, state_bytes
from neon.torch import AttachedOptimizer


def extra_memory(rule: str, side: int) -> dict[str, float]:
    """What a step takes at its peak beyond parameters, gradients and states: neon with each option, and torch."""
    shapes = Shapes(((side, side),) * 3, rounds=0)
    extra: dict[str, float] = {}
    for option in OPTIONS:
        line = Line("memory", rule, "", option)
        extra[f"neon {option}"] = _peak(lambda work, line=line: attach(line, work).step, shapes)
    for who in torch_optimizers(rule, make_work(Shapes(((1,),), rounds=0)).groups(1.0)):
        extra[who] = _peak(lambda work, who=who: torch_optimizers(rule, work.groups(1.0))[who].step, shapes)
    return extra


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


def kept_memory(rule: str, side: int) -> dict[str, float]:
    """The peak that weights, their states and two steps raise resident memory by, in each format."""
    shapes = Shapes(((side, side),) * 3, rounds=0)
    return {name: _resident(rule, form, shapes) for name, form in FORMATS.items()}


def _resident(rule: str, form: Format, shapes: Shapes) -> float:
    """Gradients are there before; and kernels, by steps over tensors of as many elements as are stored in few bits."""
    _new(rule, form, [torch.ones(64, 64, dtype=form.dtype) for _ in shapes.tensors])
    gc.collect()
    grads = [torch.ones(shape, dtype=form.dtype) for shape in shapes.tensors]
    machine.forget_peak()
    before = machine.resident_bytes("VmRSS")
    optimizer = _new(rule, form, grads)
    after = machine.resident_bytes("VmHWM")
    del optimizer
    return (after - before) / shapes.elements


def _new(rule: str, form: Format, grads: Sequence[Tensor]) -> AttachedOptimizer:
    """An optimizer after two steps over new weights with these gradients."""
    params = [torch.ones_like(grad).requires_grad_() for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    optimizer = neon_optimizer(rule, **form.options).attach(params)
    for _ in range(2):
        optimizer.step()
    return optimizer


def matrix_memory(rule: str, shape: str) -> dict[str, float]:
    """The bytes that two steps over matrices raise resident memory by, beyond states: neon's, then torch's.

    What neon works in stays between steps: the peak of a later one alone would not show it.
    """
    line, extra = Line("matrices", rule, shape), {}
    for who, make in (("neon", partial(attach, line)), ("torch", partial(torch_peer, rule))):
        make(make_work(Shapes(((64, 64),), rounds=0))).step()  # kernels are there before
        gc.collect()
        work = make_work(MATRICES[shape])
        machine.forget_peak()
        before = machine.resident_bytes("VmRSS")
        optimizer = make(work)
        optimizer.step()
        optimizer.step()
        states = sum(state_bytes(optimizer.state[param]) for param in work.params)
        extra[who] = machine.resident_bytes("VmHWM") - before - states
        del optimizer
    return extra


MEASURED: dict[str, Callable[[str, str], dict[str, float]]] = {
    "memory": lambda rule, side: extra_memory(rule, int(side)),
    "kept": lambda rule, side: kept_memory(rule, int(side)),
    "matrices": matrix_memory,
}

if __name__ == "__main__":
    print(json.dumps(MEASURED[sys.argv[1]](*sys.argv[2:]) if machine.LINUX else {}))
