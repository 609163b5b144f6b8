"""Generated kernels: each value is read once and written once, and the source changes only on purpose."""

from __future__ import annotations

import math
import re

import pytest
import torch
from constructors import RULES, described
from lowered_kernels import SOURCES, STORED, check_stored, kernel_of

from neon.engine import use_backend
from neon.engine.backends import numba as numba_backend
from neon.engine.program.kernel import CHUNK, LANES
from neon.engine.program.spaces import PAIRS
from neon.optimizers import Adam, GradientDescentMomentum


def accesses(source: str) -> dict[str, list[str]]:
    """Each stage's reads and writes of tensor elements, in order."""
    stages = source.split("def stage_")[1:]
    return {
        stage[0]: re.findall(r"(?<== real\()\w+_at\[i\]|(?<== word\()\w+_at\[i\]|^ +\w+_at\[i\] =", stage, re.M)
        for stage in stages
    }


@pytest.mark.parametrize("rule", RULES)
def test_each_value_is_read_once_and_written_once(rule: str) -> None:
    """Of each pass over elements; those that reduce have two loops, of which each element is in one."""
    kernel = kernel_of(described(rule))
    written: list[str] = []
    passes = [stage for stage in kernel.stages if stage.calls is None]
    for stage, found in zip(passes, accesses(numba_backend.source(kernel)).values(), strict=True):
        found = [a for a in found if a.strip().split("_at[")[0] in kernel.tensors]
        if stage.narrow:
            written += sorted({a.strip(" =") for a in found if "=" in a})
            continue
        loops = 2 if stage.reduces else 1
        reads = sorted(a for a in found if "=" not in a)
        assert reads == sorted(f"{load.label}_at[i]" for load in stage.loads for _ in range(loops))
        written += sorted({a.strip(" =") for a in found if "=" in a})
        assert len([a for a in found if "=" in a]) == loops * len(stage.stores)
    apart = {*kernel.program.own_numbers, *(slot.name for slot in kernel.slots if slot.space in PAIRS), "g", "p0"}
    known = {*kernel.tensors} - apart  # where Prodigy began never changes, and calls write pairs
    again = {*kernel.buffers}  # written before one call and before the next
    assert {*written} == {f"{name}_at[i]" for name in known}
    assert len([x for x in written if x.split("_at")[0] not in again]) == len(known - again)


def test_clip_by_norm_costs_one_more_read_of_the_gradient() -> None:
    source = numba_backend.source(kernel_of(Adam(gradient_clip_norm=1.0, gradient_clip_value=0.1)))
    # once in whole pairs of rows, once in what remains: each element is in one of the two
    assert accesses(source)["0"] == ["g_at[i]", "g_at[i]"]


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
