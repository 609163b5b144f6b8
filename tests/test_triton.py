"""The GPU's kernels, run by Triton's interpreter: every rule, option, format and rounding against the eager backend."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import rule_cases
import torch
from rule_cases import CASES, RULES, Result, gradients, make, moments, run, weights
from test_kernels import REQUIRED, kernel_of
from test_kernels import RULES as CLASSES
from test_storage import BITS, assert_same, options, small, states_of, tensors_of, train
from torch import Tensor

import neon.engine
from neon.engine import use_backend
from neon.engine.backends import triton
from neon.engine.kernel import CHUNK, LANES
from neon.optimizers import Adam, GradientDescentMomentum, Lion, MultiOptimizer, Optimizer
from neon.optimizers.functions import exp, log, maximum, minimum, norm, power_of_two, sign, sqrt, where

__all__ = ["small"]
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),  # of numpy, which the interpreter computes with
]
STORED = Path(__file__).parent / "kernels" / "triton"
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
# Fewer elements than the shared table's, for the interpreter is slow; several tiles of several programs even so.
SHAPES = [*((shape, layout) for shape, layout in rule_cases.SHAPES if shape != (70001,)), ((2600,), "contiguous")]


@pytest.fixture(scope="module", autouse=True)
def shapes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rule_cases, "SHAPES", SHAPES)
        patch.setattr(triton, "PART", 2048)
        rule_cases.data.cache_clear()
        yield
    rule_cases.data.cache_clear()


def ulps(a: Tensor, b: Tensor) -> float:
    """How far two tensors are apart at most, in units of the last place of the second."""
    a, b = a.flatten(), b.flatten()
    apart = ~((a == b) | (a.isnan() & b.isnan()))
    unit = torch.nextafter(b.abs(), torch.tensor(float("inf"), dtype=b.dtype)) - b.abs()
    return float(((a - b).abs() / unit)[apart].max()) if apart.any() else 0.0


# Of float64 the interpreter's powers, logarithms and exponentials are not those of the host to the last bit.
FARTHEST = {torch.float64: 4.0}


@pytest.mark.parametrize(("rule", "option"), CASES)
@pytest.mark.parametrize("dtype", DTYPES[:2])
def test_every_rule_under_every_option(rule: str, option: str, dtype: torch.dtype) -> None:
    how = "attach" if dtype == torch.float64 else "optimize"
    eager, gpu = (run(rule, option, dtype, backend=backend, how=how, steps=2) for backend in ("eager", "triton"))
    for x, y in zip(gpu.tensors(), eager.tensors(), strict=True):
        assert x.dtype == y.dtype
        assert ulps(x, y) <= FARTHEST.get(dtype, 0.0)
