"""Kernels as optimizers lower to them, and those whose generated source is stored."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import torch
from constructors import RULES, described

from neon.engine.program.kernel import Kernel
from neon.engine.program.lowering import lower
from neon.engine.program.slots import Formats
from neon.engine.tensors.storage import SMALL
from neon.optimizers import Adam, Optimizer

STORED = Path(__file__).parent / "kernels"
# What would be another on another processor.
_STEADY = {name: {"units": "float32"} for name in RULES if "units" in inspect.signature(RULES[name]).parameters}
# Whose source is stored, by the name of its file.
SOURCES: dict[str, tuple[Optimizer, torch.dtype]] = {
    **{name.lower(): (described(name, **_STEADY.get(name, {})), torch.float32) for name in RULES},
    "adam_int8": (Adam(state_dtype="int8"), torch.bfloat16),
    "adam_every_option": (Adam(True, 1e-3, 0.9, 0.999, 1e-8, 1.0, 0.1, 2.0, wdecay=0.1), torch.bfloat16),
}


def kernel_of(optimizer: Optimizer, dtype: torch.dtype = torch.float32) -> Kernel:
    program = optimizer.settings(optimizer.group()).program
    width = optimizer.settings(optimizer.group()).width
    storage, param = optimizer.settings(optimizer.group()).storage, torch.empty(SMALL, dtype=dtype)
    states = tuple(storage.dtype_of(name, program, param) for name in program.states)
    return lower(program, Formats(dtype, dtype, states, width))


def check_stored(source: str, path: Path) -> None:
    """After a change on purpose, run the tests with NEON_STORE_KERNELS=1 and read the difference."""
    if os.environ.get("NEON_STORE_KERNELS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
    assert source == path.read_text(encoding="utf-8")
