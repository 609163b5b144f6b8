"""Threads and processes: the same bits however the work is spread, and after a fork."""

from __future__ import annotations

import hashlib
import os
import pickle
import select
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from neon.engine import threads
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer

LARGE = (200_003, 70_001)  # several chunks each, none of them full at the end
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
# From Python 3.12 on every fork beside threads warns; that such a fork is safe is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def _as_many_threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def adam() -> Adam:
    return Adam(learning_rate=0.01, gradient_clip_norm=0.5)


class Run:
    """Large tensors and an optimizer of theirs; gradients are made beforehand."""

    def __init__(self, opt: Optimizer, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.params = [nn.Parameter(torch.randn(n, generator=generator)) for n in LARGE]
        self.grads = [[torch.randn(n, generator=generator) for n in LARGE] for _ in range(4)]
        self.opt = opt.attach(self.params)

    def step(self, steps: range) -> Run:
        for step in steps:
            for p, g in zip(self.params, self.grads[step], strict=True):
                p.grad = g
            self.opt.step()
        return self

    def digest(self) -> str:
        """A fingerprint of every bit of parameters and states."""
        tensors = [t.detach() for p in self.params for t in (p, *self.opt.state[p].values())]
        return hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()


def digest(opt: Optimizer, seed: int = 0) -> str:
    return Run(opt, seed).step(range(4)).digest()


# -- threads of a pass -----------------------------------------------------------------------------


@pytest.mark.parametrize("norm", [None, 0.5])
def test_one_and_several_threads_give_the_same_bits(norm: float | None) -> None:
    found = set()
    for count in (1, 2, 7):
        torch.set_num_threads(count)
        found.add(digest(Adam(gradient_clip_norm=norm)))
    assert len(found) == 1


def test_the_pool_that_stands_in_for_openmp_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = digest(adam())
    used: list[int] = []
    pool = threads._pool

    def recorded(size: int) -> ThreadPoolExecutor:
        used.append(size)
        return pool(size)

    monkeypatch.setattr(threads, "_openmp_parallel", lambda: None)
    monkeypatch.setattr(threads, "_pool", recorded)
    assert digest(adam()) == expected
    assert set(used) == {1}
    torch.set_num_threads(5)
    assert digest(adam()) == expected
    assert set(used) == {1, 4}


def test_small_steps_run_in_the_thread_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_openmp_parallel", lambda: pytest.fail("asked for a team"))
    p = nn.Parameter(torch.zeros(64))
    p.grad = torch.ones(64)
    adam().attach([p]).step()
    assert p.any()


# -- calls from several Python threads -------------------------------------------------------------


def at_once(actions: list[Callable[[], Any]]) -> list[Any]:
    """Each action in a thread of its own, all let go together."""
    barrier = threading.Barrier(len(actions))

    def released(action: Callable[[], Any]) -> Any:
        barrier.wait(timeout=60)
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(released, action) for action in actions]]


@pytest.mark.parametrize("team", ["openmp", "pool"])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "one description"])
def test_models_trained_in_several_python_threads(shared: bool, team: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [digest(adam(), seed) for seed in range(4)]
    if team == "pool":
        monkeypatch.setattr(threads, "_openmp_parallel", lambda: None)
    description = adam()
    actions = [lambda seed=seed: digest(description if shared else adam(), seed) for seed in range(4)]
    assert at_once(actions) == expected


def test_one_optimizer_may_optimize_layers_of_several_threads() -> None:
    def new_layer() -> nn.Linear:  # not in the threads, which share torch's generator
        torch.manual_seed(0)
        return nn.Linear(5, 3)

    def train(opt: Optimizer, seed: int, layer: nn.Linear) -> list[list[float]]:
        for step in range(20):
            for number, p in enumerate(layer.parameters()):
                p.grad = torch.full_like(p, 1.0 + seed + step + number)
            opt.optimize([layer], 0)
        return [p.flatten().tolist() for p in layer.parameters()]

    def mapping() -> MultiOptimizer:
        return MultiOptimizer({"default": adam(), "Bias": GradientDescentMomentum(0.1, 0.9)})

    expected = [train(mapping(), seed, new_layer()) for seed in range(4)]
    opt, layers = mapping(), [new_layer() for _ in range(4)]
    assert at_once([lambda seed=seed: train(opt, seed, layers[seed]) for seed in range(4)]) == expected


def test_a_rule_is_compiled_by_several_threads_at_once() -> None:
    class Fresh(Optimizer):
        @staticmethod
        def rule(w: Any, g: Any, trace: Any, *, lr: Any = 0.5) -> Any:
            return w - lr * g - trace, trace + g

    def train() -> list[float]:
        p = nn.Parameter(torch.zeros(2))
        opt = Fresh().attach([p])
        for _ in range(2):
            p.grad = torch.ones(2)
            opt.step()
        return p.tolist()

    assert at_once([train] * 4) == [[-2.0, -2.0]] * 4


def test_an_optimizer_stepped_by_several_threads_loses_no_step() -> None:
    p = nn.Parameter(torch.zeros(8))
    p.grad = torch.ones(8)
    opt = GradientDescentMomentum(1.0, 0.0).attach([p])
    at_once([lambda: [opt.step() for _ in range(50)]] * 4)
    assert p.tolist() == [-200] * 8
    assert opt.state[p]["step"].item() == 200


# -- processes -------------------------------------------------------------------------------------


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
    """The threads that ran the parent's steps do not exist in the child."""
    expected = digest(adam())
    run = Run(adam()).step(range(2))
    assert in_child(lambda: run.step(range(2, 4)).digest()) == expected
    assert in_child(lambda: in_child(lambda: run.step(range(2, 4)).digest())) == expected
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
