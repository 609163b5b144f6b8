"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from neon.audit.first_steps import FirstSteps
from neon.backends import default, gen_backend
from neon.engine import backends, early_sums
from neon.engine.native import threads
from neon.engine.tensors import storage

# Where there is no GPU its kernels are run by Triton's interpreter. Triton asks when it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Programs of other processes: what they import warns (torch.distributed.optim still compiles by torch.jit).
collect_ignore = ["distributed_saving.py", "distributed_low.py", "distributed_equal.py", "distributed_seen.py"]
# Programs that a test runs, each with its folder to import from.
collect_ignore_glob = ["gallery/*"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run crossings of features in full, not pair by pair")
    parser.addoption("--random-rules", help="how many random rules to run, or FIRST:LAST of their seeds")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "crossing: a case whose features meet two by two in others; --all runs it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("all"):
        waiting = [item for item in items if item.get_closest_marker("crossing")]
        items[:] = [item for item in items if not item.get_closest_marker("crossing")]
        config.hook.pytest_deselected(items=waiting)


@pytest.fixture(autouse=True)
def no_backend_left() -> Iterator[None]:
    """A test that leaves a backend forced would have all that follow compare it with itself."""
    yield
    left, backends._forced[0] = backends._forced[0], None
    assert left is None


@pytest.fixture(autouse=True)
def no_batch_size_left() -> Iterator[None]:
    """Gradients are divided by the batch size of the process: a test that sets one would change those that follow."""
    yield
    default.bsz = 1
    default.has_batch_size = False


@pytest.fixture(scope="module", autouse=True)
def little_to_collect() -> None:
    """What is imported stays: a test that collects garbage need not look through it each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def nothing_compiled() -> None:
    """As in a process in which torch's compiler has done nothing yet."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


@pytest.fixture(autouse=True)
def no_look_fails(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where an audit cannot look at something it ends, and the training goes on: tests would not see its faults."""
    failed, tried = list[str](), FirstSteps._tried

    def noted(steps: FirstSteps, look: Any, *given: Any) -> Any:
        found = tried(steps, look, *given)
        failed.extend(filter(None, [steps.record.failure]))
        return found

    monkeypatch.setattr(FirstSteps, "_tried", noted)
    yield
    assert not failed


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from a team of threads, and wait for it where cores are few."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Tests that set the number of threads, and begin with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def batches_of_eight() -> Iterator[None]:
    gen_backend(batch_size=8, rng_seed=0)
    yield
    gen_backend(batch_size=1)


@pytest.fixture
def batches_of_128() -> Iterator[None]:
    gen_backend(batch_size=128, rng_seed=0)
    yield
    gen_backend(batch_size=1)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have tensors of any size in the format that was asked for."""
    monkeypatch.setattr(storage, "SMALL", 0)


@pytest.fixture
def alone() -> Iterator[DeviceMesh]:
    """A mesh of one process."""
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


@pytest.fixture
def exact_numbers() -> Iterator[None]:
    """torch keeps the numbers that each tensor has of its own, as NAdam's, in the default dtype, neon in float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def hooks_for_small_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms are taken in the backward pass of tensors of 9 elements and more."""
    monkeypatch.setattr(early_sums, "LARGE", 9)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many elements each launch goes over."""
    counts: list[int] = []
    run = threads.run
    monkeypatch.setattr(threads, "run", lambda *a: (counts.append(a[3]), run(*a)))
    return counts
