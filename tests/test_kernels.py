"""Generated kernels: each value is read once and written once, and the source changes only on purpose."""

from __future__ import annotations

import inspect
import math
import os
import re
from pathlib import Path

import pytest
import torch

from neon import optimizers
from neon.commands.library import example_numbers
from neon.engine import use_backend
from neon.engine.backends import numba as numba_backend
from neon.engine.program.kernel import CHUNK, LANES, Formats, Kernel, lower
from neon.engine.tensors.slots import SMALL
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer

STORED = Path(__file__).parent / "kernels"
RULES = sorted(
    {
        cls
        for _, cls in inspect.getmembers(optimizers, inspect.isclass)
        if issubclass(cls, Optimizer) and cls not in (Optimizer, MultiOptimizer)
    },
    key=lambda cls: cls.__name__,
)


def kernel_of(optimizer: Optimizer, dtype: torch.dtype = torch.float32) -> Kernel:
    program = optimizer.settings(optimizer.group()).program
    width = optimizer.settings(optimizer.group()).width
    storage, param = optimizer.settings(optimizer.group()).storage, torch.empty(SMALL, dtype=dtype)
    states = tuple(storage.dtype_of(name, program, param) for name in program.states)
    return lower(program, Formats(dtype, dtype, states, width))


def accesses(source: str) -> dict[str, list[str]]:
    """Each stage's reads and writes of tensor elements, in order."""
    stages = source.split("def stage_")[1:]
    return {
        stage[0]: re.findall(r"(?<== real\()\w+_at\[i\]|(?<== word\()\w+_at\[i\]|^ +\w+_at\[i\] =", stage, re.M)
        for stage in stages
    }


@pytest.mark.parametrize("cls", RULES)
def test_each_value_is_read_once_and_written_once(cls: type[Optimizer]) -> None:
    kernel = kernel_of(cls(**example_numbers(cls)))
    (found,) = accesses(numba_backend.source(kernel)).values()
    reads = sorted(a for a in found if "=" not in a)
    writes = sorted(a.strip(" =") for a in found if "=" in a)
    assert reads == sorted(f"{name}_at[i]" for name in kernel.tensors)
    assert writes == sorted(f"{name}_at[i]" for name in kernel.tensors if name != "g")


def test_clip_by_norm_costs_one_more_read_of_the_gradient() -> None:
    source = numba_backend.source(kernel_of(Adam(gradient_clip_norm=1.0, gradient_clip_value=0.1)))
    # once in whole pairs of rows, once in what remains: each element is in one of the two
    assert accesses(source)["0"] == ["g_at[i]", "g_at[i]"]


# Whose source is stored, by the name of its file.
SOURCES = {cls.__name__.lower(): (cls(**example_numbers(cls)), torch.float32) for cls in RULES} | {
    "adam_int8": (Adam(state_dtype="int8"), torch.bfloat16),
    "adam_every_option": (Adam(True, 1e-3, 0.9, 0.999, 1e-8, 1.0, 0.1, 2.0, wdecay=0.1), torch.bfloat16),
}


def check_stored(source: str, path: Path) -> None:
    """After a change on purpose, run the tests with NEON_STORE_KERNELS=1 and read the difference."""
    if os.environ.get("NEON_STORE_KERNELS"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(source, encoding="utf-8")
    assert source == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", SOURCES)
def test_source_is_the_stored_one(name: str) -> None:
    check_stored(numba_backend.source(kernel_of(*SOURCES[name])), STORED / f"{name}.txt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_norm_is_accurate_and_the_same_on_every_backend(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = [1, 2, 3, LANES - 1, LANES, LANES + 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 17]
    grads = [torch.randn(n, generator=generator, dtype=dtype) * 10 ** (n % 7) for n in sizes]
    exact = math.sqrt(math.fsum(v * v for g in grads for v in g.double().tolist()))
    updates = []
    for backend in ("eager", "numba"):
        params = [torch.zeros(n, dtype=dtype, requires_grad=True) for n in sizes]
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad.clone()
        with use_backend(backend):
            GradientDescentMomentum(1.0, 0.0, gradient_clip_norm=1.0).attach(params).step()
        updates.append([param.detach() for param in params])
    for eager, compiled, grad in zip(*updates, grads, strict=True):
        assert torch.equal(eager, compiled)
        tolerance = 1e-14 if dtype == torch.float64 else 2e-7
        torch.testing.assert_close(eager, -grad / exact, rtol=tolerance, atol=0)
