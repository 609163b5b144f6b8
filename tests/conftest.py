"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

# Where there is no GPU its kernels are run by Triton's interpreter. Triton asks when it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Programs of other processes: what they import warns (torch.distributed.optim still compiles by torch.jit).
collect_ignore = ["distributed_saving.py", "distributed_low.py", "distributed_equal.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--random-rules", default="100", help="how many random rules to run, or FIRST:LAST of their seeds")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from a team of threads, and wait for it where cores are few."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _backend_is_put_back() -> Iterator[None]:
    """What a test has served by one backend is over at its end: the next would run by it in silence."""
    yield
    from neon.engine.backends import forced

    assert forced() is None
