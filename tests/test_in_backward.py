"""Updates within the backward pass: the same steps as without, with one gradient alive at a time."""

from __future__ import annotations

import copy
import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from constructors import describing, without_vectors
from exported_optimizers import APART
from optimizer_contents import assert_same, everything
from torch import nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.utils.checkpoint import checkpoint

from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer, Schedule, WarmupCosine

pytestmark = pytest.mark.usefixtures("one_thread")

MAPPING: dict[str, Any] = {
    "optimizer_mapping": {
        "default": Adam(schedule=WarmupCosine(2, 9, unit="steps")),
        "Bias": GradientDescentMomentum(0.1, 0.9, wdecay=0.1, schedule=Schedule([1], 0.5)),
    },
}
description = describing(MultiOptimizer=MAPPING)
every = pytest.mark.parametrize("name", ["MultiOptimizer", *APART])


def sgd(rate: float = 0.5, momentum: float = 0.0, **options: Any) -> Optimizer:
    return GradientDescentMomentum(rate, momentum, **options)


def network(depth: int = 3, rule: str = "") -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(depth)))
    return without_vectors(rule, model)


def loss(model: nn.Module, step: int) -> torch.Tensor:
    x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    return (model(x) - x.flip(1)).square().sum()


def train(model: nn.Module, optimizer: Any, steps: range) -> None:
    for step in steps:
        optimizer.set_epoch(step // 2)
        loss(model, step).backward()
        optimizer.step()
        optimizer.zero_grad()


def values(optimizer: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in optimizer.param_groups]


@pytest.mark.parametrize("clip", [None, 0.05])
@every
def test_the_steps_are_those_without(name: str, clip: float | None) -> None:
    ends = []
    for in_backward in (True, False):
        model = network(rule=name)
        optimizer: Any = description(name).attach(model, in_backward=in_backward)
        if clip is not None:
            optimizer.set("gradient_clip_value", clip)
        train(model, optimizer, range(6))
        ends.append(optimizer)
    assert_same(*ends)
    assert values(ends[0]) == values(ends[1])


def test_one_gradient_is_alive_at_a_time() -> None:
    model = network(5)
    optimizer: Any = Adam().attach(model, in_backward=True)
    alive: list[int] = []
    for p in model.parameters():
        p.register_post_accumulate_grad_hook(
            lambda _: alive.append(sum(p.grad is not None for p in model.parameters()))
        )
        p.register_hook(lambda _: alive.append(sum(p.grad is not None for p in model.parameters())))
    train(model, optimizer, range(2))
    assert max(alive) <= 1
    assert len(alive) == 2 * 2 * 10
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("bound", [0.1, 2.0, 1e6])
def test_clipping_by_the_norm_of_the_step_before(bound: float) -> None:
    """A reference in float64; in the first step each gradient goes by its own norm."""
    model, same = network().double(), network().double()
    optimizer: Any = sgd(0.01).attach(model, in_backward=True, gradient_clip_previous_norm=bound)
    previous = 0.0
    for step in range(5):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step)).double()
        for net in (model, same):
            (net(x) - x.flip(1)).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            grads = [p.grad.clone() for p in same.parameters() if p.grad is not None]
            for p, grad in zip(same.parameters(), grads, strict=True):
                norm = previous or grad.norm().item()
                p -= 0.01 * min(1.0, bound / norm) * grad
                p.grad = None
        previous = math.sqrt(sum(grad.square().sum().item() for grad in grads))
        assert optimizer.param_groups[0]["previous_norm"] == pytest.approx(previous, rel=1e-12)
    torch.testing.assert_close([*model.parameters()], [*same.parameters()], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
@pytest.mark.parametrize("first", [False, True])
def test_a_norm_that_is_not_finite_is_named_and_not_clipped_by(wrong: float, first: bool) -> None:
    p, other = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer: Any = sgd(1.0).attach([("p", p), ("other", other)], in_backward=True, gradient_clip_previous_norm=1.0)

    def step(size: float) -> None:
        (p.sum() + other.sum() * size).backward()
        optimizer.step()

    if not first:
        step(1.0)
    known = optimizer.param_groups[0]["previous_norm"]
    with pytest.warns(RuntimeWarning, match="gradient of parameter 'other' is not finite"):
        step(wrong)
    assert optimizer.param_groups[0]["previous_norm"] == known == (0.0 if first else 2.0)
    before = p.detach().clone()
    step(1.0)
    assert torch.equal(before - p, torch.full((2,), 1.0 / (math.sqrt(2.0) if first else 2.0)))
    assert optimizer.param_groups[0]["previous_norm"] == 2.0


def test_two_backward_passes_in_one_step_are_two_updates() -> None:
    """Gradients do not add up over passes: each is used as it arrives."""
    twice, apart = network(), network()
    a, b = (Adam().attach(m, in_backward=True) for m in (twice, apart))
    kept = loss(twice, 0)
    kept.backward()
    loss(twice, 1).backward()
    a.step()
    a.step()  # nothing has arrived since
    train(apart, b, range(2))
    assert_same(a, b)


def test_without_a_call_of_step() -> None:
    """The last update stays open, for schedules too, until the next pass or step()."""
    model, expected = network(), network()
    made = Adam(schedule=WarmupCosine(2, 9, unit="steps"))
    a, b = (made.attach(m, in_backward=True) for m in (model, expected))
    for step in range(3):
        loss(model, step).backward()
    assert a.param_groups[0]["updates"] == 2
    train(expected, b, range(3))
    assert_same(a, b)


def test_a_retained_graph_is_caught_by_autograd() -> None:
    """The weights of the first pass are no longer those that it was computed with."""
    model = network()
    optimizer = sgd().attach(model, in_backward=True)
    kept = loss(model, 0)
    kept.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        kept.backward()
    optimizer.step()


def test_a_gradient_set_by_hand() -> None:
    p = nn.Parameter(torch.zeros(2))
    optimizer = sgd(1.0).attach([p], in_backward=True)
    p.grad = torch.ones(2)
    optimizer.step()
    assert (p.tolist(), p.grad) == ([-1, -1], None)


def test_a_parameter_that_is_used_twice() -> None:
    p = nn.Parameter(torch.tensor(3.0))
    optimizer = sgd(1.0).attach([p], in_backward=True)
    (2 * p + p * p).backward()
    assert p.item() == 3 - 2 - 6
    optimizer.step()
    assert p.item() == -5


def test_requires_grad_that_is_switched() -> None:
    ends = []
    for in_backward in (True, False):
        model = network()
        first: Any = model[0][0]
        first.requires_grad_(requires_grad=False)
        optimizer: Any = Adam().attach(model, in_backward=in_backward)
        train(model, optimizer, range(2))
        first.requires_grad_(requires_grad=True)
        train(model, optimizer, range(2, 4))
        first.requires_grad_(requires_grad=False)
        train(model, optimizer, range(4, 6))
        ends.append(optimizer)
    assert_same(*ends)


RESUMED: dict[str, Callable[[Any, nn.Module, Any], tuple[nn.Module, Any]]] = {
    "checkpoint": lambda made, model, opt: _loaded(made, model, opt),
    "deepcopy": lambda made, model, opt: copy.deepcopy((model, opt)),
}


def _loaded(made: Any, model: nn.Module, old: Any) -> tuple[nn.Module, Any]:
    fresh = network(rule=type(made).__name__)
    optimizer = made.attach(fresh, in_backward=True, gradient_clip_previous_norm=0.5)
    fresh.load_state_dict(copy.deepcopy(model.state_dict()))
    optimizer.load_state_dict(copy.deepcopy(old.state_dict()))
    return fresh, optimizer


@pytest.mark.parametrize("how", RESUMED)
@every
def test_resumed_in_mid_run(name: str, how: str) -> None:
    made, model = description(name), network(rule=name)
    optimizer: Any = made.attach(model, in_backward=True, gradient_clip_previous_norm=0.5)
    train(model, optimizer, range(3))
    twin_model, twin = RESUMED[how](made, model, optimizer)
    before = everything(optimizer)
    train(twin_model, twin, range(3, 6))
    torch.testing.assert_close(everything(optimizer), before, rtol=0, atol=0)  # hooks of its own parameters only
    train(model, optimizer, range(3, 6))
    assert_same(twin, optimizer)
    assert values(twin) == values(optimizer)


def test_a_scheduler_of_torchs() -> None:
    ends = []
    for in_backward in (True, False):
        model = network()
        optimizer: Any = Adam().attach(model, in_backward=in_backward)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        for step in range(4):
            train(model, optimizer, range(step, step + 1))
            scheduler.step()
        ends.append(optimizer)
    assert_same(*ends)


def test_activation_checkpointing() -> None:
    class Saving(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self:
                x = checkpoint(layer, x, use_reentrant=False)  # pyright: ignore[reportAssignmentType]
            return x

    saving, plain = Saving(*network()), network()
    a, b = Adam().attach(saving, in_backward=True), Adam().attach(plain)
    train(saving, a, range(4))
    train(plain, b, range(4))
    assert_same(a, b)


def test_model_and_optimizer_are_collected() -> None:
    model = network()
    optimizer = Adam().attach(model, in_backward=True)
    train(model, optimizer, range(1))
    gone = [weakref.ref(model), weakref.ref(optimizer), weakref.ref(next(model.parameters()))]
    del model, optimizer
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


def test_hooks_go_with_the_optimizer() -> None:
    """A model that lives on has none of an optimizer that was dropped, and the optimizer goes without a collector."""
    model = network()

    def hooks() -> int:
        return sum(len(p._post_accumulate_grad_hooks or ()) for p in model.parameters())  # type: ignore[attr-defined]

    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            optimizer: Any = Adam().attach(model, in_backward=True)
            train(model, optimizer, range(1))
            optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
            assert hooks() == 6
            del optimizer
            assert hooks() == 0
        with pytest.raises(ValueError, match="previous_norm"):
            Adam(gradient_clip_norm=1.0).attach(model, in_backward=True)
        assert hooks() == 0
    finally:
        gc.enable()


def test_a_parameter_of_a_new_group_is_updated_as_its_gradient_arrives() -> None:
    p, q = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer: Any = sgd(1.0).attach([p], in_backward=True)
    optimizer.add_param_group({"params": [q], "lr": 0.5})
    (p + q).sum().backward()
    assert (p.tolist(), q.tolist(), q.grad) == ([-1, -1], [-0.5, -0.5], None)


def test_a_state_from_before_the_first_step() -> None:
    """The norm of the step before goes with the state, also where there was none yet."""
    model = network()
    start = copy.deepcopy(model.state_dict())
    optimizer: Any = sgd().attach(model, in_backward=True, gradient_clip_previous_norm=0.5)
    before, ends = copy.deepcopy(optimizer.state_dict()), []
    for _ in range(2):
        train(model, optimizer, range(2))
        ends.append(everything(optimizer))
        optimizer.load_state_dict(before)
        model.load_state_dict(start)
    torch.testing.assert_close(*ends, rtol=0, atol=0)


@every
def test_the_rehearsal_of_distributed_checkpoints(name: str) -> None:
    """torch has states made by a step with rates and gradients of zero: nothing else comes of it."""
    model = network(rule=name)
    options = {} if name == "MultiOptimizer" else {"param_clip_value": 0.01}
    optimizer: Any = description(name, **options).attach(model, in_backward=True)
    params, groups = copy.deepcopy([*model.parameters()]), values(optimizer)
    get_optimizer_state_dict(model, optimizer)
    torch.testing.assert_close([*model.parameters()], params, rtol=0, atol=0)
    assert values(optimizer) == groups
    kept = [(p, name, value) for p, state in optimizer.state.items() for name, value in state.items()]
    starts = {"mu": torch.ones(()), "mu_product": torch.ones(())}
    for p, name, value in kept:  # weights as weights, products of nothing, bases and roots as the identity, and zeros
        unit = torch.eye(len(value)) if name.endswith(("_basis", "_root")) else torch.zeros(())
        start = p if name in ("slow_weight", "ax") else starts.get(name, unit)
        assert bool((value == start).all())
    assert len(optimizer.state) == len(params)
    loss(model, 0).backward()
    assert not any(map(torch.equal, model.parameters(), params))


CHANGED: dict[str, Callable[[Any], Any]] = {
    "group replaced": lambda o: o.param_groups.__setitem__(0, {**o.param_groups[0], "lr": 0.125}),
    "groups replaced": lambda o: setattr(o, "param_groups", [{**o.param_groups[0], "lr": 0.125}]),
    "group split": lambda o: o.param_groups.append({**o.param_groups[0], "lr": 0.125, "params": split(o)}),
    "removed": lambda o: o.param_groups[0]["params"].pop(),
    "removed and back": lambda o: o.param_groups[0]["params"].insert(0, o.param_groups[0]["params"].pop()),
    "replaced": lambda o: o.param_groups[0]["params"].__setitem__(0, replaced(o.param_groups[0]["params"][0])),
}


def split(optimizer: Any) -> list[Any]:
    return [optimizer.param_groups[0]["params"].pop() for _ in range(2)][::-1]


def replaced(old: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(old.detach().clone())


@pytest.mark.parametrize("what", CHANGED)
def test_groups_that_change_between_steps(what: str) -> None:
    """As without in_backward: what belongs to no group any more stands still, what is new is trained."""
    ends = []
    for in_backward in (True, False):
        model = network()
        optimizer: Any = sgd(momentum=0.9).attach([*model.parameters()], in_backward=in_backward)
        train(model, optimizer, range(2))
        CHANGED[what](optimizer)
        for p in optimizer.param_groups[0]["params"]:
            p.grad = torch.ones_like(p) if p not in set(model.parameters()) else None
        train(model, optimizer, range(2, 4))
        ends.append([*everything(optimizer), *model.parameters()])
    torch.testing.assert_close(*ends, rtol=0, atol=0)


REFUSED: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "norm": (lambda m: sgd(gradient_clip_norm=1.0).attach(m, in_backward=True), "gradient_clip_previous_norm=k"),
    "outer norm": (
        lambda m: MultiOptimizer({"default": sgd()}, gradient_clip_norm=1.0).attach(m, in_backward=True),
        "gradient_clip_previous_norm=k",
    ),
    "skip": (lambda m: sgd().attach(m, in_backward=True, skip_nonfinite=True), "Leave one of the two out"),
    "previous norm": (lambda m: sgd().attach(m, gradient_clip_previous_norm=1.0), "is for in_backward=True"),
    "previous norm of a part": (
        lambda m: sgd().attach(m, in_backward=True, partitioned=True, gradient_clip_previous_norm=1.0),
        "cannot be had with partitioned=True",
    ),
    "bound": (lambda m: sgd().attach(m, in_backward=True, gradient_clip_previous_norm=-1.0), "previous_norm"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str) -> None:
    make, words = REFUSED[what]
    model = network()
    with pytest.raises(ValueError, match=words):
        make(model)
    loss(model, 0).backward()
    assert all(p.grad is not None for p in model.parameters())  # no hook has been left


TWICE: dict[str, Callable[[nn.Parameter, nn.Parameter], Any]] = {
    "attached": lambda p, q: sgd().attach([{"params": [p, q, p]}], in_backward=True),
    "added": lambda p, q: sgd().attach([p], in_backward=True).add_param_group({"params": [q, q]}),
    "appended": lambda p, q: appended(sgd().attach([p, q], in_backward=True), p),
}


def appended(optimizer: Any, param: nn.Parameter) -> None:
    optimizer.param_groups[0]["params"].append(param)
    optimizer.step()


@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
@pytest.mark.parametrize("how", TWICE)
def test_a_parameter_that_is_listed_twice_is_refused(how: str) -> None:
    p, q = (nn.Parameter(torch.ones(2)) for _ in range(2))
    with pytest.raises(ValueError, match=r"is the same parameter as params\[0\] of '\w+'\. List each parameter once"):
        TWICE[how](p, q)


def test_a_group_that_is_refused_is_not_there() -> None:
    p, q = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer: Any = sgd().attach([p], in_backward=True)
    with pytest.raises(ValueError, match="List each"), pytest.warns(UserWarning, match="duplicate"):
        optimizer.add_param_group({"params": [q, q]})
    (p.sum() + q.sum()).backward()
    optimizer.step()
    assert len(optimizer.param_groups) == 1
    assert (p.grad, q.tolist()) == (None, [1.0, 1.0])


def test_a_scaler_is_refused() -> None:
    p = nn.Parameter(torch.zeros(2))
    optimizer, scaler = sgd().attach([p], in_backward=True), torch.amp.GradScaler("cpu")
    scaler.scale((p * 2).sum())
    p.grad = torch.ones(2)
    with pytest.raises(RuntimeError, match="cannot follow a GradScaler"):
        scaler.step(optimizer)
    assert not p.any()


def test_replicas_are_refused(tmp_path: Any) -> None:
    """The hooks of DistributedDataParallel average gradients after ours have used them."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        replica = nn.parallel.DistributedDataParallel(network())
        with pytest.raises(ValueError, match="DistributedDataParallel"):
            sgd().attach(replica, in_backward=True)
        with pytest.raises(ValueError, match="DistributedDataParallel"):
            sgd().attach(nn.Sequential(replica), in_backward=True)
    finally:
        torch.distributed.destroy_process_group()
