"""Threads: the same bits however the work is spread, and from whichever thread it comes."""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from large_run import LARGE, Run, adam, digest
from torch import nn

from neon.engine.native import threads
from neon.engine.program.kernel import CHUNK
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer

pytestmark = pytest.mark.usefixtures("two_threads")
needs_team = pytest.mark.skipif(threads._team is None, reason="torch has no OpenMP team here that neon can use")


# -- threads of a pass -----------------------------------------------------------------------------


class Counted:
    """A team or a pool that notes how many threads each pass is given."""

    def __init__(self, call: Callable[..., None]) -> None:
        self.call = call
        self.counts: list[int] = []

    def __call__(self, function: Any, context: int, count: int, *flags: int) -> None:
        self.counts.append(count)
        self.call(function, context, count, *flags)


@pytest.fixture(params=[pytest.param("team", marks=needs_team), "pool"])
def spread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Torch's team where there is one, or what stands in for it."""
    if request.param == "team":
        assert threads._team is not None
        counted = Counted(threads._team)
        monkeypatch.setattr(threads, "_team", counted)
        monkeypatch.setattr(threads, "team", lambda: 0)  # what compiled code calls is not counted
    else:
        monkeypatch.setattr(threads, "_team", None)
        counted = Counted(threads._pool.run)
        monkeypatch.setattr(threads._pool, "run", counted)
    return counted


@pytest.mark.parametrize("norm", [None, 0.5])
def test_the_number_of_threads_is_torchs_at_each_step_and_changes_no_bit(spread: Counted, norm: float | None) -> None:
    torch.set_num_threads(1)
    expected = digest(Adam(gradient_clip_norm=norm))
    assert spread.counts == []
    run = Run(Adam(gradient_clip_norm=norm))
    for step, count in enumerate((2, 3, 1, 7)):  # 7: more than chunks, and than most machines' cores
        torch.set_num_threads(count)
        run.step(range(step, step + 1))
    assert run.digest() == expected
    # The whole team, but no more threads of the pool than there are chunks.
    most = min(7, sum(-(-n // CHUNK) for n in LARGE)) if threads._team is None else 7
    assert list(dict.fromkeys(spread.counts)) == [2, 3, most]


@pytest.mark.parametrize(("tensors", "size"), [(1, 64), (2, 16_000), (1, 65_536), (2000, 200)])
def test_small_work_is_done_by_the_thread_that_asks(spread: Counted, tensors: int, size: int) -> None:
    """Few elements, one chunk, or chunks so small that threads would wait for each other."""
    params = [nn.Parameter(torch.zeros(size)) for _ in range(tensors)]
    for p in params:
        p.grad = torch.ones(size)
    adam().attach(params).step()
    assert all(p.all() for p in params)
    assert spread.counts == []


def test_other_python_threads_go_on_while_a_kernel_runs(spread: Counted) -> None:
    count, seen, stop = 0, [], threading.Event()

    def counting() -> None:
        nonlocal count
        while not stop.is_set():
            count += 1
            time.sleep(0)  # lets the others go on

    def watched(*call: Any) -> None:
        before = count
        spread_call(*call)
        seen.append(count - before)

    spread_call, spread.call = spread.call, watched
    run, interval = Run(adam()), sys.getswitchinterval()
    thread = threading.Thread(target=counting)
    thread.start()
    sys.setswitchinterval(60)  # nobody lets another thread go on but of its own will
    try:
        for _ in range(500):
            run.step(range(4))
            if any(seen):
                break
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()
    assert any(seen)


@needs_team
def test_passes_started_by_the_threads_of_a_team() -> None:
    """As from a parallel region of another library."""
    expected = {digest(adam(), seed) for seed in range(2)}
    runs = [Run(adam(), seed) for seed in range(2)]
    found: list[str] = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def region(_: int | None) -> None:
        found.append(runs.pop().step(range(4)).digest())

    assert threads._team is not None
    threads._team(ctypes.cast(region, ctypes.c_void_p), 0, 2, 0)
    assert set(found) == expected


def test_an_interrupt_does_not_leave_threads_writing() -> None:
    """Memory that a thread of the pool still writes must not be let go."""
    main = threading.main_thread()
    entered, finished = threading.Event(), threading.Event()

    def kernel(_: int) -> None:
        if threading.current_thread() is main:
            entered.wait(timeout=60)
            return
        entered.set()
        signal.raise_signal(signal.SIGINT)  # the main thread is about to wait, or does
        time.sleep(0.2)
        finished.set()

    with pytest.raises(KeyboardInterrupt):
        threads._Pool().run(kernel, 0, 2)
    assert finished.is_set()


def test_where_no_thread_can_be_started_the_calling_one_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    called: list[int] = []
    threads._Pool().run(called.append, 5, 3)
    assert called == [5]


# -- calls from several Python threads -------------------------------------------------------------


def at_once(actions: list[Callable[[], Any]]) -> list[Any]:
    """Each action in a thread of its own, all let go together."""
    barrier = threading.Barrier(len(actions))

    def released(action: Callable[[], Any]) -> Any:
        barrier.wait(timeout=60)
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return [future.result(timeout=60) for future in [pool.submit(released, action) for action in actions]]


@pytest.mark.parametrize("shared", [False, True], ids=["own", "one description"])
def test_models_trained_in_several_python_threads_beside_a_backward_pass(spread: Counted, shared: bool) -> None:
    expected = [digest(adam(), seed) for seed in range(4)]
    description = adam()
    actions = [lambda seed=seed: digest(description if shared else adam(), seed) for seed in range(4)]
    weight = torch.ones(512, 512, requires_grad=True)

    def backward() -> None:
        for _ in range(20):
            (weight @ weight).sum().backward()

    assert at_once([*actions, backward])[:-1] == expected
    assert set(spread.counts) == {2}


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
