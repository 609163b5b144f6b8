"""Processes: forked, spawned, a data loader's workers, new ones with their own order of imports."""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from large_run import Run, adam, digest
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import neon
import neon.torch
from neon.engine.native import threads
from neon.optimizers import Optimizer

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
# From Python 3.12 on every fork beside threads warns; that such a fork is safe is what is tested here.
pytestmark = [
    pytest.mark.usefixtures("two_threads"),
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]


def in_child(action: Callable[[], Any], timeout: float = 60) -> Any:
    """What the action gives in a forked child; a child that hangs is ended, and the test fails."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, pickle.dumps(action()))
        except BaseException as error:
            os.write(writing, pickle.dumps(error))
        finally:
            os._exit(0)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], timeout)
        if not ready:
            os.kill(child, signal.SIGKILL)
        found = os.read(reading, 65536)
    finally:
        os.close(reading)
        os.waitpid(child, 0)
    assert ready, "the child hangs"
    assert found, "the child died"
    result = pickle.loads(found)
    if isinstance(result, BaseException):
        raise result
    return result


@needs_fork
def test_a_child_goes_on_where_the_parent_stepped() -> None:
    """The threads that ran the parent's steps do not exist in the child: it starts its own."""
    expected = digest(adam())
    run = Run(adam()).step(range(2))

    def child() -> list[str]:
        return [run.step(range(2, 4)).digest(), *(t.name for t in threading.enumerate()[1:])]

    assert in_child(child) == [expected, "neon"]
    assert in_child(lambda: in_child(child)) == [expected, "neon"]
    assert run.step(range(2, 4)).digest() == expected  # the parent has its own copy


@needs_fork
def test_a_child_starts_runs_of_its_own() -> None:
    expected = digest(adam())

    class Fresh(Optimizer):
        @staticmethod
        def rule(w: Any, g: Any, *, lr: Any = 0.5, twice: Any = 2.0) -> Any:
            return w - lr * twice * g

    def child() -> Any:
        torch.set_num_threads(1)  # torch's own work, as DataLoader's workers do
        p = nn.Parameter(torch.zeros(2))
        p.grad = torch.ones(2)
        Fresh().attach([p]).step()  # compiled in the child
        return p.tolist(), digest(adam())

    assert in_child(child) == ([-1.0, -1.0], expected)


@needs_fork
def test_a_child_is_not_held_up_by_what_another_thread_was_doing() -> None:
    """Forked while a thread is in the middle of its first step: its locks are nobody's in the child."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Optimizer):
        @staticmethod
        def rule(w: Any, g: Any, *, lr: Any = 0.5) -> Any:
            inside.set()
            go_on.wait(timeout=120)
            return w - lr * g

    def small_step(opt: Optimizer) -> list[float]:
        p = nn.Parameter(torch.zeros(2))
        p.grad = torch.ones(2)
        opt.attach([p]).step()
        return p.tolist()

    expected = small_step(adam())
    thread = threading.Thread(target=small_step, args=(Slow(),))
    thread.start()
    try:
        assert inside.wait(timeout=60)
        assert in_child(lambda: small_step(adam()), timeout=10) == expected
    finally:
        go_on.set()
        thread.join(timeout=60)


@needs_fork
@pytest.mark.parametrize("team", ["team", "pool"])
def test_a_child_forked_in_the_midst_of_a_pass(team: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread's kernels run all the while, and its locks, threads and team are nobody's in the child."""
    if team == "pool":
        monkeypatch.setattr(threads, "_team", None)
    expected, stop = digest(adam(), seed=1), threading.Event()
    run = Run(adam(), seed=1).step(range(1))

    def steps() -> None:
        other = Run(adam())
        while not stop.is_set():
            other.step(range(4))

    thread = threading.Thread(target=steps)
    thread.start()
    try:
        assert [in_child(lambda: run.step(range(1, 4)).digest(), timeout=10) for _ in range(5)] == [expected] * 5
    finally:
        stop.set()
        thread.join(timeout=60)


class Digests(Dataset[list[Any]]):
    """What a data loader's worker finds when it trains."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, seed: int) -> list[Any]:
        return [torch.get_num_threads(), digest(adam(), seed)]


@pytest.mark.parametrize("method", [pytest.param("fork", marks=needs_fork), "spawn"])
def test_training_in_the_workers_of_a_data_loader(method: str) -> None:
    expected = [[1, digest(adam(), seed)] for seed in range(2)]
    loader = DataLoader(Digests(), batch_size=None, num_workers=1, multiprocessing_context=method, timeout=60)
    assert list(loader) == expected


# -- counts in shared memory -----------------------------------------------------------------------


def three_steps(weight: nn.Parameter, optimizer: Any) -> None:
    torch.set_num_threads(1)
    for _ in range(3):
        weight.grad = torch.ones(4)
        optimizer.step()


Shared = dict[str, Callable[[Any], Any]]
SHARED: Shared = {
    "Adagrad": lambda of: of.Adagrad,
    "Adam": lambda of: of.Adam,
    "RMSprop": lambda of: of.RMSprop,
}


def in_new_processes(number: int, method: str, *arguments: Any) -> None:
    context = torch.multiprocessing.get_context(method)
    for _ in range(number):
        process = context.Process(target=three_steps, args=arguments)
        process.start()
        process.join(60)
        assert process.exitcode == 0


# That a spawned process counts on is the next test's to show; by turns with its parent, a forked one's.
@pytest.mark.parametrize(
    ("name", "method"),
    [
        pytest.param("Adagrad", "spawn", marks=pytest.mark.crossing if hasattr(os, "fork") else ()),
        *(pytest.param(name, "fork", marks=needs_fork) for name in SHARED),
    ],
)
def test_processes_share_counts(name: str, method: str) -> None:
    """One after the other, and the parent among them, by turns: as torch's class does in one process."""
    weights = [nn.Parameter(torch.ones(4)) for _ in range(2)]
    options = {"lr_decay": 1.0} if name == "Adagrad" else {}
    theirs, optimizer = (
        SHARED[name](module)([weight], lr=0.1, **options)
        for module, weight in zip((torch.optim, neon.torch), weights, strict=True)
    )
    for _ in range(5):
        three_steps(weights[0], theirs)
    weight = weights[1]
    three_steps(weight, optimizer)
    weight.share_memory_()
    for tensor in optimizer.state[weight].values():
        tensor.share_memory_()
    count = optimizer.state[weight]["step"]
    in_new_processes(1, method, weight, optimizer)
    three_steps(weight, optimizer)
    in_new_processes(1, method, weight, optimizer)
    three_steps(weight, optimizer)
    assert optimizer.state[weight]["step"] is count
    assert optimizer.state_dict()["state"][0]["step"] == count == 15
    torch.testing.assert_close(*weights)


def test_a_spawned_process_goes_on_with_the_counts_it_is_given() -> None:
    weight = nn.Parameter(torch.ones(4))
    weight.share_memory_()
    optimizer = neon.torch.Adagrad([weight], lr=0.1, lr_decay=1.0)
    optimizer.share_memory()
    three_steps(weight, optimizer)
    in_new_processes(1, "spawn", weight, optimizer)
    assert optimizer.state[weight]["step"] == 6


@needs_fork
def test_processes_count_at_the_same_time() -> None:
    """None stands still or goes by another's number: an update may be lost, as torch's may."""
    weight = nn.Parameter(torch.zeros(4))
    weight.share_memory_()
    optimizer = neon.torch.SGD([weight], lr=1.0)
    optimizer.state[weight] = {"step": torch.zeros(()).share_memory_()}
    context = torch.multiprocessing.get_context("fork")
    running = [context.Process(target=three_steps, args=(weight, optimizer)) for _ in range(2)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
        assert process.exitcode == 0
    assert 3 <= optimizer.state[weight]["step"] <= 6


# All is loaded and torch's team is formed, then threads are counted: a step on another team would start some.
NEW_PROCESS = """
import atexit, os
import {modules}
import torch
from neon.engine.native import threads
from large_run import adam, digest
{setting}
def started():
    return set(os.listdir("/proc/self/task")) if os.path.exists("/proc/self/task") else set()

p = torch.zeros(2, requires_grad=True)
p.grad = torch.ones(2)
adam().attach([p]).step()
torch.ones(1_000_000).mul_(2)
before = started()
found = digest(adam())
print(torch.get_num_threads(), found, len(started() - before))
atexit.register(digest, adam())  # threads are there to the very end, or done without
"""
OPENMP_LIBRARIES = "sklearn.cluster, scipy.linalg, numba.np.ufunc.omppool"  # each has its own, or the system's
ONE = int(Path("/proc/self/task").exists())  # elsewhere nobody counts them


@pytest.mark.parametrize("modules", ["neon", pytest.param(OPENMP_LIBRARIES, id="other OpenMP libraries")])
def test_a_new_process_runs_passes_on_torchs_team_whatever_is_imported_first(modules: str) -> None:
    assert new_process(modules, 3) == (digest(adam()), ONE if threads._team is None else 0)


def test_a_new_process_of_one_thread_starts_none() -> None:
    assert new_process("numpy", 1) == (digest(adam()), 0)


def test_a_process_ends_quietly_while_threads_of_the_pool_wait() -> None:
    assert new_process("numpy", 2, "threads._team = None; torch.set_num_threads(2)") == (digest(adam()), ONE)


def new_process(modules: str, count: int, setting: str = "") -> tuple[str, int]:
    """The fingerprint of a run, and how many threads it started; OMP_NUM_THREADS is an upper limit."""
    code = NEW_PROCESS.format(modules=modules, setting=setting)
    paths = [str(Path(__file__).parent), str(Path(neon.__file__).parent.parent)]
    environment = os.environ | {"OMP_NUM_THREADS": str(count), "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    used, found, started = done.stdout.split()
    assert 1 <= int(used) <= count
    return found, int(started)


@needs_fork
def test_training_beside_the_workers_of_a_data_loader() -> None:
    inputs = torch.randn(12, 300, generator=torch.Generator().manual_seed(0))

    def train(workers: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = nn.Linear(300, 300)  # large enough for several threads
        opt = adam().attach(model)
        for _ in range(2):  # workers are forked anew, now after steps of the parent
            kind = {"num_workers": workers, "multiprocessing_context": "fork"} if workers else {}
            for (batch,) in DataLoader(TensorDataset(inputs), batch_size=4, **kind):
                opt.zero_grad()
                model(batch).square().mean().backward()
                opt.step()
        return [p.detach() for p in model.parameters()]

    for alone, beside in zip(train(0), train(2), strict=True):
        assert torch.equal(alone, beside)
