"""Ctrl-C at any moment of a step: what kernels have written and the counts of updates agree."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch

from neon.engine.backends import use_backend
from neon.engine.interrupts import Uninterrupted
from neon.optimizers import Adam, GradientDescentMomentum, Schedule

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.skipif(os.name == "nt", reason="no such signals")]
Step = Callable[[], None]
Check = Callable[[], None]


@pytest.fixture(autouse=True)
def ctrl_c_is_raised() -> Iterator[None]:
    """As in a terminal: where the tests run in the background, the system has them ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def go_on_until_interrupted(step: Step, delay: float) -> None:
    """Steps, until one SIGINT has come, from another thread at a moment that nobody knows.

    Another follows where Python has ignored it, as it does with what is raised while an object goes.
    """
    interrupted = threading.Event()

    def send() -> None:
        wait = delay
        while not interrupted.wait(wait):
            os.kill(os.getpid(), signal.SIGINT)
            wait = 1.0

    sender = threading.Thread(target=send)
    try:
        sender.start()
        while True:
            step()
    except KeyboardInterrupt:
        interrupted.set()
        sender.join()
        torch.set_grad_enabled(True)  # torch's own context may have been interrupted before it put this back


def parameters() -> list[torch.nn.Parameter]:
    """Several kernels in a step: of two formats."""
    formats = (torch.float32, torch.float64)
    return [torch.nn.Parameter(torch.zeros(3, dtype=dtype)) for dtype in formats for _ in range(4)]


def counted(optimizer: Any, params: list[Any]) -> Check:
    """By gradients of −1 and a rate of 1 a weight is the number of its updates."""

    def check() -> None:
        for p in params:
            assert p.tolist() == [float(optimizer.state[p]["step"])] * 3

    return check


def at_once() -> tuple[Step, Check]:
    params = parameters()
    optimizer = GradientDescentMomentum(1.0, 0.0, schedule=Schedule([10**9], 0.5)).attach(params)

    def step() -> None:
        for p in params:
            p.grad = -torch.ones_like(p)
        optimizer.step()

    return step, counted(optimizer, params)


def with_states_anew() -> tuple[Step, Check]:
    """Each step makes a plan and states: they are there where the weight has been updated, and only there."""
    params = parameters()
    optimizer, prepared = Adam(learning_rate=1.0).attach(params), []

    def step() -> None:
        prepared.clear()
        optimizer.state.clear()
        for p in params:
            p.data.zero_()
            p.grad = -torch.ones_like(p)
        prepared.append(True)
        optimizer.step()

    def check() -> None:
        for p in params if prepared else ():
            state = optimizer.state.get(p, {})
            updated = p.tolist() != [0.0] * 3
            assert updated == bool(state.get("step", 0)) == bool(state.get("exp_avg", p.detach() * 0).any())

    return step, check


def in_backward() -> tuple[Step, Check]:
    params = parameters()
    optimizer = GradientDescentMomentum(1.0, 0.0).attach(params, in_backward=True)

    def step() -> None:
        sum((-p).sum().double() for p in params).backward()  # type: ignore[union-attr]
        optimizer.step()

    def check() -> None:
        counted(optimizer, params)()
        for p in params:
            p.grad = None  # of a backward pass that was cut short

    return step, check


def over_layers() -> tuple[Step, Check]:
    params = [p.data for p in parameters()]
    optimizer = GradientDescentMomentum(1.0, 0.0)
    entries: list[Any] = [((p, torch.full_like(p, -optimizer.be.bsz)), []) for p in params]

    class Layer:
        def get_params(self) -> Any:
            return entries

    def check() -> None:
        for p in params:
            assert p.tolist() == [float(p._neon_step)] * 3  # type: ignore[attr-defined]

    layer = Layer()
    return lambda: optimizer.optimize([layer], 0), check


@pytest.mark.parametrize("make", [at_once, with_states_anew, in_backward, over_layers])
@pytest.mark.parametrize("backend", ["numba", "eager"])
def test_weights_and_counts_agree_after_an_interrupt(
    make: Callable[[], tuple[Step, Check]], backend: str, request: pytest.FixtureRequest
) -> None:
    step, check = make()
    with use_backend(backend):
        step()
        check()
        times = random.Random(0)
        for _ in range(150 if request.config.getoption("all") else 50):
            go_on_until_interrupted(step, times.uniform(0, 0.004))
            check()


# -- the context itself ----------------------------------------------------------------------------


def test_an_interrupt_within_is_raised_at_the_end_and_once() -> None:
    reached = []

    def interrupted_twice() -> None:
        with Uninterrupted():
            for place in (1, 2):
                signal.raise_signal(signal.SIGINT)
                reached.append(place)

    with pytest.raises(KeyboardInterrupt):
        interrupted_twice()
    assert reached == [1, 2]


def test_whose_handler_it_is_stays_and_is_called() -> None:
    calls: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        calls.append(number)

    before = signal.signal(signal.SIGINT, handler)
    try:
        with Uninterrupted():
            signal.raise_signal(signal.SIGINT)
            assert not calls
        assert calls == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_one_handler_is_kept_when_the_step_fails() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), Uninterrupted():
        _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) is before


def test_ignored_interrupts_stay_ignored_and_other_threads_are_left_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Uninterrupted():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    found = []

    def elsewhere() -> None:
        with Uninterrupted():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [before]
