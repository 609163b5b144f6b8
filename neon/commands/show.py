"""What `neon show` prints: a rule's equation, its graph and the source generated for it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from neon.commands.errors import UsageError
from neon.commands.library import example_text, exported_rules, library_classes
from neon.commands.optimizer_text import parse_optimizer
from neon.engine.backends import numba, triton_source
from neon.engine.native.cache import path_of
from neon.engine.program.formats import weight_dtypes
from neon.engine.program.kernel import Kernel
from neon.engine.program.lowering import lower
from neon.engine.program.printer import listing
from neon.engine.program.slots import Formats
from neon.engine.tensors.storage import AS_COMPUTED
from neon.optimizers import Optimizer

# Who prints the source for a device.
SOURCES = {"cpu": numba.source, "cuda": triton_source.source}


def find(text: str, dtype: str) -> tuple[Optimizer, torch.dtype]:
    """The optimizer and the dtype that a user named; a bare class name may be written in any case."""
    names = {name.lower(): name for name in library_classes()}
    name = names.get(text.replace("_", "").lower(), text)
    rule = exported_rules().get(name)
    optimizer = parse_optimizer(name if rule is None else example_text(rule)).build()
    dtypes = {str(known).removeprefix("torch."): known for known in weight_dtypes()}
    if dtype not in dtypes:
        raise UsageError(f"unknown dtype {dtype!r}. Choose one of {', '.join(dtypes)}.")
    return optimizer, dtypes[dtype]


def describe(optimizer: Optimizer, dtype: torch.dtype = torch.float32, device: str = "cpu") -> str:
    """Equation, graph and generated source of each rule that an optimizer holds, for weights of a dtype."""
    if device not in SOURCES:
        raise UsageError(f"unknown device {device!r}. Choose one of {', '.join(SOURCES)}.")
    return "\n\n".join(
        _describe(key if len(optimizer.leaves()) > 1 else "", leaf, norms, dtype, device)
        for key, (leaf, norms) in optimizer.leaves().items()
    )


def _describe(key: str, optimizer: Optimizer, norms: tuple[Optimizer, ...], dtype: torch.dtype, device: str) -> str:
    values = optimizer.group() | {"outer_clip_norms": tuple(norm.gradient_clip_norm for norm in norms)}
    settings = optimizer.settings(values, norms)
    weight = torch.empty(0, dtype=dtype)
    kernels = []
    for program in settings.programs:
        states = tuple(AS_COMPUTED.dtype_of(name, program, weight) for name in program.states)
        kernels.append(lower(program, Formats(dtype, dtype, states, settings.width)))
    title = f"{key}: {optimizer}" if key else str(optimizer)
    view = settings.view
    shown = () if view is None else ("─── at evaluation ───", view.documentation or view.name, listing(view.outputs))
    program = settings.program
    head = (
        f"═══ {title} ═══",
        "─── equation ───",
        program.documentation or f"({program.name} has no docstring)",
    )
    return "\n\n".join((*head, *(text for kernel in kernels for text in _shown(kernel, device, shown))))


def _shown(kernel: Kernel, device: str, view: Sequence[str]) -> tuple[str, ...]:
    """The graph and the source of a kernel; a second one is that of tensors of fewer than two dimensions."""
    source = SOURCES[device](kernel)
    return (
        f"─── graph, {kernel.name} ───",
        kernel.graph(),
        *view,
        f"─── source, {path_of(kernel.name, source)} ───",
        source.rstrip(),
    )
