"""Sums of gradients taken as these arrive: the bits of steps that sum themselves, and hooks that keep nothing."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from constructors import OPTIMIZERS, described
from optimizer_contents import assert_same
from summed_early import BOUND, backward, clipped, hooks, loss_of, network, train, twins, weight
from torch import nn
from torch._dynamo import compiled_autograd

import neon.torch
from neon.engine import early_sums, use_backend
from neon.engine.native import threads
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer

pytestmark = pytest.mark.usefixtures("one_thread", "hooks_for_small_tensors")


@pytest.mark.parametrize("often", [64, 5])
def test_a_step_sums_only_what_is_small(read: list[int], often: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of 16 elements have hooks, biases of 4 have none; whatever is to be checked is read once more."""
    monkeypatch.setattr(early_sums, "CHECKED", often)
    model = network()
    optimizer = clipped().attach(model, norms_in_backward=True)
    sums = []
    for step in range(12):
        backward(model, step)
        before = len(read)
        optimizer.step()
        optimizer.zero_grad()
        sums.append(read[before:])
    checked = {0, 1, 2, 4, 8} | ({5, 10} if often == 5 else set())  # the first has no hooks yet
    assert sums == [[60 if step in checked else 12, 60] for step in range(12)]


MAPPING = MultiOptimizer(
    {"default": Adam(), "Bias": GradientDescentMomentum(0.1, 0.9, gradient_clip_norm=0.1)}, gradient_clip_norm=BOUND
)
SIZES = [*((name, 4) for name in OPTIMIZERS), *((name, 300) for name in ("Adam", "Muon", "MultiOptimizer"))]


@pytest.mark.parametrize(("name", "width"), SIZES)
def test_the_steps_are_those_without(name: str, width: int) -> None:
    """A width of 300 makes tensors of several chunks."""
    ends = []
    for norms_in_backward in (True, False):
        model = network(width, rule=name)
        rule = MAPPING if name == "MultiOptimizer" else described(name, gradient_clip_norm=BOUND)
        optimizer: Any = rule.attach(model, norms_in_backward=norms_in_backward)
        train(model, optimizer, range(6))
        ends.append(optimizer)
    assert_same(*ends)


FORMS: dict[str, Callable[[], Optimizer]] = {
    "value": lambda: clipped(gradient_clip_value=1e-3),
    "maximize": lambda: clipped(maximize=True),
    "averages": lambda: clipped(weight_average=0.9),
    "int8": lambda: clipped(state_dtype="int8", stochastic_round=True),
    "nested": lambda: MultiOptimizer(
        {"default": MultiOptimizer({"default": clipped(), "Bias": Adam()}, gradient_clip_norm=0.02)},
        gradient_clip_norm=0.01,
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_forms_and_formats(form: str, dtype: torch.dtype) -> None:
    ends = []
    for norms_in_backward in (True, False):
        model = network(20).to(dtype)
        optimizer: Any = FORMS[form]().attach(model, norms_in_backward=norms_in_backward)
        train(model, optimizer, range(7))
        ends.append(optimizer)
    assert_same(*ends)


# -- which backward passes ------------------------------------------------------------------------------


def test_accumulated_gradients_are_summed_with_the_last_backward_pass(read: list[int]) -> None:
    (model, optimizer), (same, other) = twins()
    for turn in range(4):
        for net, each in ((model, optimizer), (same, other)):
            read.clear()
            for part in range(3 if turn < 3 else 1):
                backward(net, 3 * turn + part)
            in_backward = len(read)
            each.step()
            each.zero_grad()
            if net is model:  # three weights each time at first; then with the last; one pass comes too early
                assert in_backward == (9, 3, 3, 0)[turn]
                assert read[in_backward] == (12, 60, 12, 60)[turn]  # the second one is checked
    assert_same(optimizer, other)


def test_parameters_without_gradients_and_back() -> None:
    ends = []
    for model, optimizer in twins():
        for step in range(3, 12):
            backward(model, step)
            if step % 3 == 0:
                weight(model).grad = None
            optimizer.step()
            optimizer.zero_grad()
        ends.append(optimizer)
    assert_same(*ends)


def test_a_closure_and_several_optimizers_on_one_model() -> None:
    ends = []
    for norms_in_backward in (True, False):
        model = network()
        pair = [clipped().attach(model, norms_in_backward=norms_in_backward) for _ in range(2)]
        for step, optimizer in product(range(8), pair):
            optimizer.step(partial(loss_of, model, step))
        ends.append(pair)
    assert_same(ends[0][0], ends[1][0])
    assert_same(ends[0][1], ends[1][1])


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_steps_left_out_for_gradients_that_are_not_finite(wrong: float) -> None:
    (model, optimizer), (same, other) = twins(Adam, skip_nonfinite=True)
    factor = 1.0
    for net in (model, same):
        net[1][0].weight.register_hook(lambda g: g * factor)  # type: ignore[index]
    for step in range(3, 8):
        factor = wrong if step == 5 else 1.0
        train(model, optimizer, range(step, step + 1))
        train(same, other, range(step, step + 1))
    assert_same(optimizer, other)
    assert (optimizer.skipped_steps, optimizer.last_nonfinite) == (1, "1.0.weight")
    assert (other.skipped_steps, other.last_nonfinite) == (1, "1.0.weight")


def test_a_backward_pass_in_another_thread_and_in_two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one set of gradients one sum is taken at a time."""
    (model, optimizer), (same, other) = twins()
    run, within = threads.run, threading.Semaphore()

    def slowly(*given: Any) -> None:
        assert within.acquire(blocking=False)
        time.sleep(0.002)
        run(*given)
        within.release()

    monkeypatch.setattr(threads, "run", slowly)
    monkeypatch.setattr(threading, "excepthook", pytest.fail)
    for step in range(3, 9):
        passes = [threading.Thread(target=backward, args=(model, step))]
        passes += [threading.Thread(target=backward, args=(model, step))] if step % 2 else []
        for each in passes:
            each.start()
        for each in passes:
            each.join()
        for _ in passes:
            backward(same, step)
        for each in (optimizer, other):
            each.step()
            each.zero_grad()
    assert_same(optimizer, other)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's compiled autograd
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models_and_compiled_autograd(backend: str) -> None:
    ends = []
    for model, optimizer in twins():
        compiled = torch.compile(model, backend=backend)
        train(compiled, optimizer, range(3, 7))
        for step in range(7, 11):
            x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            loss = (compiled(x) - x).square().sum()
            with compiled_autograd._enable(torch.compile(backend=backend)):
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(optimizer)
    assert_same(*ends)


# -- hooks, and what they keep --------------------------------------------------------------------------


def test_no_gradient_is_kept() -> None:
    [(model, optimizer), _] = twins()
    backward(model, 3)
    grad = weakref.ref(weight(model).grad)
    assert grad() is not None
    model.zero_grad()
    assert grad() is None
    backward(model, 4)
    assert weakref.getweakrefcount(weight(model).grad) == 1
    optimizer.step()
    assert weakref.getweakrefcount(weight(model).grad) == 0


def test_hooks_go_with_the_optimizer_and_come_with_its_plan() -> None:
    """Nobody else has to collect it."""
    gc.collect()
    gc.disable()
    try:
        model = network()
        optimizer = clipped().attach(model, norms_in_backward=True)
        assert hooks(model) == 0
        train(model, optimizer, range(2))
        assert hooks(model) == 3
        optimizer.freeze("0.0")
        assert hooks(model) == 0
        train(model, optimizer, range(2))
        assert hooks(model) == 2
        optimizer.load_state_dict(optimizer.state_dict())
        assert hooks(model) == 0
        train(model, optimizer, range(2))
        gone = weakref.ref(optimizer)
        del optimizer
        assert (hooks(model), gone()) == (0, None)
    finally:
        gc.enable()


@pytest.mark.parametrize("how", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_have_hooks_of_their_own(how: Callable[[Any], Any], read: list[int]) -> None:
    [(model, optimizer), _] = twins()
    twin, other = how((model, optimizer))
    assert hooks(twin) == 0
    for step in range(3, 10):
        for net, each in ((model, optimizer), (twin, other)):
            train(net, each, range(step, step + 1))
    assert hooks(twin) == hooks(model) == 3
    assert read[-2:] == [12, 60]
    assert_same(optimizer, other)


def test_other_backends_sum_in_the_step() -> None:
    ends = []
    for norms_in_backward in (True, False):
        with use_backend("eager"):
            model = network()
            optimizer = clipped().attach(model, norms_in_backward=norms_in_backward)
            train(model, optimizer, range(4))
            assert hooks(model) == 0
        ends.append(optimizer)
    assert_same(*ends)


def test_a_class_of_torchs_name_takes_it(read: list[int]) -> None:
    model = network()
    optimizer = neon.torch.AdamW(model.parameters(), gradient_clip_norm=BOUND, norms_in_backward=True)
    train(model, optimizer, range(4))
    assert read[-2:] == [12, 60]


EXCLUDED = ("in_backward", "partitioned", "capturable")


@pytest.mark.parametrize("other", EXCLUDED)
def test_what_is_refused(other: str) -> None:
    with pytest.raises(ValueError, match=f"norms_in_backward cannot be had with {other}=True"):
        Adam().attach(network(), norms_in_backward=True, **{other: True})
    with pytest.raises(TypeError, match="norms_in_backward must be True or False"):
        Adam().attach(network(), norms_in_backward="yes")  # type: ignore[arg-type]


def test_what_sums_is_what_an_unclipped_rule_does_not_have() -> None:
    model = network()
    train(model, GradientDescentMomentum(0.1, 0.9).attach(model, norms_in_backward=True), range(2))
    assert hooks(model) == 0


@pytest.mark.parametrize("largest", [15, 16])
def test_gradients_that_no_cache_would_have_are_summed_in_the_step(
    largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(early_sums, "LARGEST", largest)
    model = network()
    optimizer = clipped().attach(model, norms_in_backward=True)
    train(model, optimizer, range(2))
    assert hooks(model) == (3 if largest == 16 else 0)


def test_parameters_that_the_kernel_works_on_copies_of() -> None:
    ends = []
    for norms_in_backward in (True, False):
        p, q = nn.Parameter(torch.ones(4, 8)[:, ::2]), nn.Parameter(torch.ones(4, 4))
        optimizer = clipped().attach([p, q], norms_in_backward=norms_in_backward)
        for step in range(4):
            (p * q * (step + 1)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        assert [len(each._post_accumulate_grad_hooks or ()) for each in (p, q)] == [0, int(norms_in_backward)]
        ends.append(optimizer)
    assert_same(*ends)
