"""Sums of gradients taken as these arrive: the bits of steps that sum themselves, and never a sum of something else."""

from __future__ import annotations

import copy
import gc
import math
import pickle
import threading
import weakref
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from constructors import OPTIMIZERS, described, without_vectors
from optimizer_contents import assert_same
from torch import distributed, nn
from torch._dynamo import compiled_autograd

import neon.torch
from neon.engine import early_sums, use_backend
from neon.engine.native import threads
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer

pytestmark = pytest.mark.usefixtures("one_thread")
BOUND = 1e-2  # below every norm here: a wrong one shows in the weights


@pytest.fixture(autouse=True)
def hooks_for_small_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early_sums, "LARGE", 9)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many elements each launch goes over."""
    counts: list[int] = []
    run = threads.run
    monkeypatch.setattr(threads, "run", lambda *a: (counts.append(a[3]), run(*a)))
    return counts


def network(width: int = 4, rule: str = "") -> nn.Sequential:
    torch.manual_seed(1)
    layers = (nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(3))
    return without_vectors(rule, nn.Sequential(*layers))


def backward(model: Any, step: int) -> None:
    first = next(model.parameters())
    x = torch.randn(8, first.shape[1], generator=torch.Generator().manual_seed(step)).to(first.dtype)
    (model(x) - x.flip(1)).square().sum().backward()


def train(model: Any, optimizer: Any, steps: range) -> None:
    for step in steps:
        backward(model, step)
        optimizer.step()
        optimizer.zero_grad()


def loss_of(model: nn.Module, step: int) -> None:
    model.zero_grad()
    backward(model, step)


def clipped(**options: Any) -> Optimizer:
    return Adam(gradient_clip_norm=BOUND, **options)


def twins(make: Callable[[], Optimizer] = clipped, width: int = 4, **options: Any) -> list[tuple[nn.Module, Any]]:
    """With and without; in the next step what was summed is believed, and not checked."""
    made = []
    for norms_in_backward in (True, False):
        model = network(width)
        optimizer = make().attach(model, norms_in_backward=norms_in_backward, **options)
        train(model, optimizer, range(3))
        made.append((model, optimizer))
    return made


def hooks(model: nn.Module) -> int:
    return sum(len(p._post_accumulate_grad_hooks or ()) for p in model.parameters())  # type: ignore[attr-defined]


def weight(model: nn.Module) -> Any:
    return next(model.parameters())


def test_a_step_sums_only_what_is_small(read: list[int]) -> None:
    """Weights of 16 elements have hooks, biases of 4 have none; whatever is to be checked is read once more."""
    model = network()
    optimizer = clipped().attach(model, norms_in_backward=True)
    sums = []
    for step in range(10):
        backward(model, step)
        before = len(read)
        optimizer.step()
        optimizer.zero_grad()
        sums.append(read[before:])
    checked = (0, 1, 2, 4, 8)  # the first has no hooks yet
    assert sums == [[60 if step in checked else 12, 60] for step in range(10)]


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


# -- gradients that are others than those that were summed ---------------------------------------------


def replaced(p: Any, optimizer: Any) -> None:
    """Another object over the same memory, of the same version, with other values."""
    grad = p.grad.data.mul_(2)
    p.grad = grad.data


def replaced_by_one_of_its_number(p: Any, optimizer: Any) -> None:
    """The object is freed, and its place in memory taken by another, over the same gradient."""
    number, values = id(p.grad), p.grad.data
    values.mul_(2)
    p.grad, others = None, []
    while id(other := values.data) != number:
        others.append(other)
        assert len(others) < 1000
    p.grad = other


def moved(p: Any, optimizer: Any) -> None:
    p.grad.data = p.grad * 2


def freed(p: Any, optimizer: Any) -> None:
    p.grad = None


def restructured(p: Any, optimizer: Any) -> None:
    optimizer.freeze("0.0")


def no_grad(change: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    def changed(p: Any, optimizer: Any) -> None:
        with torch.no_grad():
            change(p.grad)

    return changed


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "replaced": replaced,
    "replaced by one of its number": replaced_by_one_of_its_number,
    "moved": moved,
    "freed": freed,
    "restructured": restructured,
    "scaled": no_grad(lambda g: g.mul_(2)),
    "written to through a view": no_grad(lambda g: g[1:].fill_(3.0)),
    "clipped by value": lambda p, o: nn.utils.clip_grad_value_([p], 1e-3),
    "clipped by norm": lambda p, o: nn.utils.clip_grad_norm_([p], 1e-3),
    "foreach": no_grad(lambda g: torch._foreach_mul_([g], 3.0)),
    "accumulated by hand": lambda p, o: p.grad.add_(torch.ones_like(p)),
    "set": no_grad(lambda g: g.set_(torch.full_like(g, 0.5))),
    "transposed": lambda p, o: setattr(p, "grad", p.grad.t()),
    "in inference mode": lambda p, o: torch.inference_mode()(lambda: p.grad.mul_(2))(),
    "a number": lambda p, o: o.param_groups[0].update(lr=0.5, gradient_clip_norm=BOUND / 2),
    "another form": lambda p, o: o.param_groups[0].update(gradient_clip_value=1e-4),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_has_changed_since_is_summed_anew(what: str) -> None:
    ends = []
    for model, optimizer in twins():
        backward(model, 3)
        CHANGES[what](weight(model), optimizer)
        optimizer.step()
        ends.append(optimizer)
    assert_same(*ends)


@pytest.mark.parametrize("unscale", [False, True])
def test_a_scaler_divides_gradients_and_does_not_tell(unscale: bool) -> None:
    ends = []
    for model, optimizer in twins():
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        for step in range(3, 8):
            first = weight(model)
            x = torch.randn(8, first.shape[1], generator=torch.Generator().manual_seed(step))
            scaler.scale((model(x) - x.flip(1)).square().sum()).backward()
            if unscale:
                scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
        ends.append(optimizer)
    assert_same(*ends)


def test_processes_average_gradients_and_do_not_tell() -> None:
    (model, optimizer), (same, other) = twins()
    assert hooks(model) == 3
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        for net, each in ((model, optimizer), (same, other)):
            backward(net, 3)
            weight(net).grad.data.mul_(2)  # as all_reduce writes
            each.step()
        assert hooks(model) == 0
        assert_same(optimizer, other)
        train(other := network(), clipped().attach(other, norms_in_backward=True), range(2))
        assert hooks(other) == 0
    finally:
        distributed.destroy_process_group()


def test_a_change_that_nobody_was_told_of_is_found_and_ends_it() -> None:
    """In the next step that is checked, which then is right, and so are all that follow."""
    (model, optimizer), (same, other) = twins()
    for net, each in ((model, optimizer), (same, other)):
        train(net, each, range(3, 4))
        backward(net, 4)
        weight(net).grad.data.clamp_(-1e-3, 1e-3)
    with pytest.warns(RuntimeWarning, match=r"gradient of parameter '0\.0\.weight' was changed after it had arrived"):
        optimizer.step()
    other.step()
    assert_same(optimizer, other)
    for step in range(5, 9):
        for net, each in ((model, optimizer), (same, other)):
            backward(net, step)
            weight(net).grad.data.clamp_(-1e-3, 1e-3)
            each.step()
    assert_same(optimizer, other)


def test_gradients_that_do_not_lie_as_the_kernel_reads_them() -> None:
    """A hook of the user's comes first, and puts a gradient there that has gaps, or another type."""
    ends = []
    for norms_in_backward in (True, False):
        model, first = network(), None
        first = weight(model)

        def spread(p: Any) -> None:
            wide = torch.full((4, 8), 7.0)
            wide[:, ::2] = p.grad
            p.grad = wide[:, ::2]

        first.register_post_accumulate_grad_hook(spread)
        optimizer = clipped().attach(model, norms_in_backward=norms_in_backward)
        train(model, optimizer, range(6))
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


def test_a_backward_pass_in_another_thread_and_in_two_at_once() -> None:
    (model, optimizer), (same, other) = twins()
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
    train(model, optimizer, range(4, 6))


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
