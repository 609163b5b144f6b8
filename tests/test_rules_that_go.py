"""A rule that is gone lets go of all that was made for it; of one that is there nothing is made twice."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch

from neon.engine import compilations, use_backend
from neon.engine.program.trace import signature
from neon.optimizers import Optimizer

pytestmark = pytest.mark.usefixtures("one_thread")


def step_of_a_new_class(backend: str) -> list[weakref.ref[Any]]:
    """A step of a rule that nobody holds afterwards."""

    class Short(Optimizer):
        @staticmethod
        def rule(w, g, m, *, lr=0.1, step):  # type: ignore[no-untyped-def]
            m = 0.9 * m + g
            return w - lr * m / (1 - 0.9**step), m

    param = torch.nn.Parameter(torch.ones(5000))
    param.grad = torch.ones_like(param)
    with use_backend(backend):
        optimizer = Short(state_dtype="int8").attach([param])
        optimizer.step()
    program = optimizer._rules.settings(optimizer.param_groups[0]).program
    (kernel,) = program.kernels.values()
    made = (Short, Short.rule, program, kernel, *kernel.executables.values())
    return [weakref.ref(one) for one in made]


@pytest.mark.parametrize("backend", ["eager", "numba"])
def test_what_was_made_for_a_rule_goes_with_it(backend: str) -> None:
    references = [reference for _ in range(3) for reference in step_of_a_new_class(backend)]
    gc.collect()  # the class, which is a cycle, and with it what knows it
    gc.collect()  # what was made for it, which is another
    assert [reference() for reference in references] == [None] * 15


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("traced")
def test_classes_without_end_need_no_memory_without_end() -> None:
    sizes = []
    for _ in range(3):
        for _ in range(100):
            step_of_a_new_class("numba")
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    assert sizes[2] - sizes[1] < 100 * 500  # a class would keep 5,400 bytes, and more that Python does not see


class Bound(Optimizer):
    """A rule that is bound to its class, and so another object each time."""

    factor = 0.5

    @classmethod
    def rule(cls, w, g, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w - cls.factor * lr * g


class Partial(Optimizer):
    """A rule that is made of another."""

    rule = partial(lambda w, g, *, lr, factor: w - factor * lr * g, lr=0.1, factor=0.5)  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [Bound, Partial])
def test_rules_that_are_no_plain_functions_are_made_once(kind: Any) -> None:
    counts = []
    for _ in range(3):
        param = torch.nn.Parameter(torch.ones(3))
        param.grad = torch.ones_like(param)
        with use_backend("numba"):
            kind().attach([param]).step()
        assert param.tolist() == pytest.approx([0.95] * 3)
        counts.append(compilations())
    assert counts[1:] == counts[:1] * 2
    assert signature(kind.rule) is signature(kind.rule)
