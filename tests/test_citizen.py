"""The class and its groups: what loops, trainers and torch itself do to an optimizer, done to every exported one."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import neon.optimizers
import neon.torch
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer, WarmupStableDecay
from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")

# What the classes that need arguments are made with; every other exported one is made with none.
NEEDED: dict[str, dict[str, Any]] = {
    "GradientDescentMomentum": {"learning_rate": 0.1, "momentum_coef": 0.9},
    "MultiOptimizer": {
        "optimizer_mapping": {
            "default": MultiOptimizer({"default": Adam(), "b": GradientDescentMomentum(0.1, 0.9)}),
            "c": Adam(schedule=WarmupStableDecay(2, 1, 3, unit="steps"), gradient_clip_norm=0.5),
        },
        "gradient_clip_norm": 3.0,
    },
}
CLASSES = {
    getattr(neon.optimizers, name): name
    for name in neon.optimizers.__all__
    if isinstance(getattr(neon.optimizers, name), type) and issubclass(getattr(neon.optimizers, name), Optimizer)
}
EXPORTED = sorted(set(CLASSES.values()) - {"Optimizer"})
every = pytest.mark.parametrize("name", EXPORTED)
# Without the mapping, whose norm reaches over groups: where one comes or goes, all others move otherwise.
every_rule = pytest.mark.parametrize("name", [name for name in EXPORTED if name != "MultiOptimizer"])


def description(name: str, **options: Any) -> Optimizer:
    return getattr(neon.optimizers, name)(**NEEDED.get(name, {}), **options)


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return {n: nn.Parameter(torch.rand(3, 2, generator=generator) - 0.5) for n in ("a", "b", "c")}


def attached(name: str) -> tuple[list[nn.Parameter], Any]:
    params = parameters()
    return [*params.values()], description(name).attach(params.items())


def give(params: list[Any], step: int) -> None:
    for number, p in enumerate(params):
        generator = torch.Generator().manual_seed(10 * step + number)
        p.grad = torch.randn(p.shape, generator=generator)


def train(params: list[Any], optimizer: Any, steps: range) -> None:
    for step in steps:
        give(params, step)
        optimizer.step()


def everything(optimizer: Any) -> list[torch.Tensor]:
    """Copies of parameters and states, in order."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    states = [optimizer.state[p] for p in params if p in optimizer.state]
    return [t.detach().clone() for t in (*params, *(state[key] for state in states for key in sorted(state)))]


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    assert all(map(torch.equal, found, expected))


# -- class and groups ------------------------------------------------------------------------------


@every
def test_every_group_has_what_defaults_and_schedulers_need(name: str) -> None:
    _, optimizer = attached(name)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(optimizer, AttachedOptimizer)
    for values in (optimizer.defaults, *optimizer.param_groups):
        assert isinstance(values["lr"], float)
        assert isinstance(values["weight_decay"], float)
        assert not {"beta1", "beta2", "beta_1", "beta_2", "learning_rate"} & set(values)
    assert all(set(group) >= set(optimizer.defaults) for group in optimizer.param_groups)
    assert optimizer.step.hooked  # torch wraps what is not marked, and hooks would run twice


@every
def test_groups_compare_by_value_to_a_plain_bool(name: str) -> None:
    """As torch does when it gathers optimizer states over processes: `if value != other`."""
    (_, one), (_, other) = attached(name), attached(name)
    train([], one, range(1))
    for mine, theirs in zip(one.state_dict()["param_groups"], other.state_dict()["param_groups"], strict=True):
        assert type(mine) is dict
        for key in mine:
            assert type(mine[key] != theirs[key]) is bool
            assert mine[key] == theirs[key] or key == "updates"


@every
def test_it_prints_and_its_state_is_torchs_kind_of_dict(name: str) -> None:
    params, optimizer = attached(name)
    assert optimizer.state[params[0]] == {}
    train(params, optimizer, range(1))
    assert set(optimizer.state) == set(params)
    assert all(
        isinstance(value, (torch.Tensor, float)) for state in optimizer.state.values() for value in state.values()
    )
    assert "Parameter" in repr(optimizer)


# -- closures and hooks ----------------------------------------------------------------------------


@pytest.mark.parametrize("observed", [False, True])
@every
def test_a_closure_is_called_once_and_its_loss_is_given_back(name: str, observed: bool) -> None:
    (params, optimizer), (others, plain) = attached(name), attached(name)
    if observed:
        optimizer.register_step_pre_hook(lambda *_: None)
    modes = []

    def closure() -> torch.Tensor:
        modes.append(torch.is_grad_enabled())
        give(params, len(modes) - 1)
        return torch.tensor(float(len(modes)))

    with torch.no_grad():
        assert [optimizer.step(closure).item(), optimizer.step(closure=closure).item()] == [1, 2]
        assert not torch.is_grad_enabled()
    assert modes == [True, True]
    train(others, plain, range(2))
    assert_same(everything(optimizer), everything(plain))


@every
def test_every_hook_runs_once_with_torchs_arguments(name: str) -> None:
    """Once for a mapping too: it holds no inner optimizer whose own hooks would run as well."""
    params, optimizer = attached(name)
    give(params, 0)
    seen: list[Any] = []

    def hook(word: str) -> Callable[..., None]:
        return lambda *arguments: seen.append((word, arguments))

    handles = [
        register_optimizer_step_pre_hook(hook("global before")),
        register_optimizer_step_post_hook(hook("global after")),
        optimizer.register_step_pre_hook(hook("before")),
        optimizer.register_step_post_hook(hook("after")),
    ]
    try:
        optimizer.step()
    finally:
        for handle in handles:
            handle.remove()
    optimizer.step()
    given = (optimizer, (optimizer,), {})
    assert seen == [(word, given) for word in ("global before", "before", "after", "global after")]


class Stepping(neon.torch.Adam):
    """A class of a user's with a step of its own, which torch puts hooks around."""

    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


class SteppingTwice(Stepping):
    def step(self, closure: Any = None) -> Any:
        super().step()
        return super().step(closure)


@pytest.mark.parametrize("kinds", [[Stepping], [SteppingTwice], [Stepping, SteppingTwice], [neon.torch.Adam, Stepping]])
def test_hooks_run_once_around_a_step_that_calls_that_of_its_base(kinds: list[Any]) -> None:
    for kind in kinds:
        weight = nn.Parameter(torch.ones(2))
        optimizer, seen = kind([weight]), []
        optimizer.register_step_pre_hook(lambda *_, seen=seen: seen.append("before"))
        optimizer.register_step_post_hook(lambda *_, seen=seen: seen.append("after"))
        weight.grad = torch.ones(2)
        for _ in range(2):
            assert optimizer.step(lambda: 5) == 5
        assert seen == ["before", "after"] * 2
        assert optimizer.state[weight]["step"] == (4 if kind is SteppingTwice else 2)


def test_hooks_run_around_the_step_of_a_base_that_is_called_directly() -> None:
    weight = nn.Parameter(torch.ones(2))
    optimizer, seen = Stepping([weight]), []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    neon.torch.Adam.step(optimizer)
    assert seen == ["before"]


def test_a_step_within_a_hook_of_another_optimizer_has_its_own_hooks() -> None:
    one, other = (Stepping([nn.Parameter(torch.ones(2))]) for _ in range(2))
    seen: list[str] = []
    one.register_step_pre_hook(lambda *_: other.step())
    other.register_step_pre_hook(lambda *_: seen.append("other"))
    one.step()
    assert seen == ["other"]


def test_a_hook_may_change_the_arguments() -> None:
    _, optimizer = attached("Adam")
    losses = []

    def before(opt: Any, args: Any, kwargs: Any) -> Any:
        return args, {**kwargs, "closure": lambda: losses.append(1) or 7}

    optimizer.register_step_pre_hook(before)
    assert optimizer.step() == 7
    assert losses == [1]
    optimizer.register_step_pre_hook(lambda *_: "nothing that torch takes")
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        optimizer.step()
    assert losses == [1]


def test_hooks_of_state_dicts_run() -> None:
    _, optimizer = attached("Adam")
    seen: list[str] = []
    optimizer.register_state_dict_pre_hook(lambda opt: seen.append("saving"))
    optimizer.register_state_dict_post_hook(lambda opt, saved: {**saved, "more": 1})
    optimizer.register_load_state_dict_pre_hook(lambda opt, saved: seen.append(f"loading {saved.pop('more')}"))
    optimizer.register_load_state_dict_post_hook(lambda opt: seen.append("loaded"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["saving", "loading 1", "loaded"]


@every
def test_the_profiler_shows_step_and_zero_grad(name: str) -> None:
    params, optimizer = attached(name)
    give(params, 0)
    with torch.autograd.profiler.profile() as profile:
        optimizer.step()
        optimizer.zero_grad()
    names = [event.name for event in profile.function_events]  # type: ignore[union-attr]
    for method in ("step", "zero_grad"):
        assert names.count(f"Optimizer.{method}#AttachedOptimizer.{method}") == 1


@pytest.mark.parametrize("history", [False, True], ids=["plain", "with a history"])
@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad(to_none: bool, history: bool) -> None:
    params, optimizer = attached("MultiOptimizer")
    give(params, 0)
    params[1].grad = None
    if history:
        [params[0].grad] = torch.autograd.grad((params[0] ** 3).sum(), params[0], create_graph=True)
    grads = [p.grad for p in params]
    optimizer.zero_grad(set_to_none=to_none)
    assert (
        [p.grad for p in params] == [None] * 3
        if to_none
        else all(p.grad is g for p, g in zip(params, grads, strict=True))
    )
    if not to_none:
        assert not any(g.any() or g.requires_grad for g in grads if g is not None)


# -- a step that others replace --------------------------------------------------------------------


def swapped_and_back(optimizer: Any, called: list[str]) -> None:
    """As accelerate does around the step of a gradient scaler."""
    original = optimizer.step

    def patched(*args: Any, **kwargs: Any) -> Any:
        called.append("patched")
        return original(*args, **kwargs)

    optimizer.step = patched
    optimizer.step()
    optimizer.step = original


def wrapped_by_a_scheduler(optimizer: Any, called: list[str]) -> None:
    torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    optimizer.step()
    assert optimizer._opt_called
    called.append("patched")


def patched_on_the_class(optimizer: Any, called: list[str]) -> None:
    inner = AttachedOptimizer.step

    def patched(self: Any, closure: Any = None) -> Any:
        called.append("patched")
        return inner(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttachedOptimizer, "step", patched)
        optimizer.step()


def subclassed(optimizer: Any, called: list[str]) -> None:
    """As Lightning does: the class of a wrapper is derived from the optimizer's."""

    class Wrapped(AttachedOptimizer):
        def __init__(self) -> None:
            self.__dict__ = {**optimizer.__dict__}

        def step(self, closure: Any = None) -> Any:
            called.append("patched")
            return optimizer.step(closure)

    wrapper = Wrapped()
    assert isinstance(wrapper, torch.optim.Optimizer)
    wrapper.step()


PATCHES = [swapped_and_back, wrapped_by_a_scheduler, patched_on_the_class, subclassed]


@pytest.mark.parametrize("patch", PATCHES)
@every
def test_a_step_that_others_replace_updates_once(name: str, patch: Any) -> None:
    (params, optimizer), (others, plain) = attached(name), attached(name)
    called: list[str] = []
    give(params, 0)
    patch(optimizer, called)
    assert called == ["patched"]
    give(others, 0)
    plain.step()
    assert_same(everything(optimizer), everything(plain))
    train(params, optimizer, range(1, 3))
    train(others, plain, range(1, 3))
    assert_same(everything(optimizer), everything(plain))
    copy.deepcopy(optimizer)
    pickle.dumps(optimizer)


# -- copies ----------------------------------------------------------------------------------------

COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": lambda pair: (pair[0], copy.copy(pair[1])),
    "deepcopy": copy.deepcopy,
    "pickle": lambda pair: pickle.loads(pickle.dumps(pair)),
}
# torch's own bookkeeping, which its own optimizers lose as well
TORCHS = {"_warned_capturable_if_run_uncaptured", "_opt_called"}


@pytest.mark.parametrize("way", COPIES)
@every
def test_a_copy_has_every_attribute_and_goes_on(name: str, way: str) -> None:
    (params, optimizer), (others, plain) = attached(name), attached(name)
    for one in (params, optimizer), (others, plain):
        train(*one, range(2))
        one[1].set_epoch(1)
    params, copied = COPIES[way]((params, optimizer))
    assert set(vars(optimizer)) - set(vars(copied)) <= TORCHS
    assert repr(copied) == repr(optimizer)
    assert [set(group) for group in copied.param_groups] == [set(group) for group in optimizer.param_groups]
    train(params, copied, range(2, 5))
    train(others, plain, range(2, 5))
    assert_same(everything(copied), everything(plain))


# -- parameters and groups that come and go ---------------------------------------------------------


def in_the_list(group: Any, new: list[Any]) -> None:
    for place, p in enumerate(new):
        group["params"][place] = p


def as_a_new_list(group: Any, new: list[Any]) -> None:
    group["params"] = new


@pytest.mark.parametrize("moved", [False, True], ids=["fresh", "moved"])
@pytest.mark.parametrize("replace", [in_the_list, as_a_new_list])
@every
def test_parameters_that_are_replaced_are_trained(name: str, replace: Any, moved: bool) -> None:
    """As FSDP2 and ZeRO do. With the states moved, the run is the undisturbed one, else that of a new optimizer."""
    (params, optimizer), (others, plain) = attached(name), attached(name)
    train(params, optimizer, range(2))
    train(others, plain, range(2))
    new = []
    for group in optimizer.param_groups:
        fresh = [nn.Parameter(p.detach().clone()) for p in group["params"]]
        for old, p in zip(group["params"], fresh, strict=True):
            state = optimizer.state.pop(old)
            if moved:
                optimizer.state[p] = state
        replace(group, fresh)
        new += fresh
    kept = [p.detach().clone() for p in params]
    if not moved:
        plain.state.clear()
    train(new, optimizer, range(2, 4))
    train(others, plain, range(2, 4))
    assert_same(everything(optimizer), everything(plain))
    assert_same([p.detach() for p in params], kept)  # what was replaced is left alone


def replaced_groups(optimizer: Any) -> None:
    """As trainers do that rebuild groups around a step."""
    optimizer.param_groups = [{**group} for group in optimizer.param_groups]


def emptied_and_added(optimizer: Any) -> None:
    groups = [{**group} for group in optimizer.param_groups]
    optimizer.param_groups.clear()
    for group in groups:
        optimizer.add_param_group(group)


def turned_around(optimizer: Any) -> None:
    optimizer.param_groups.reverse()


@pytest.mark.parametrize("change", [replaced_groups, emptied_and_added, turned_around])
@every
def test_groups_that_are_made_anew_change_nothing(name: str, change: Any) -> None:
    (params, optimizer), (others, plain) = attached(name), attached(name)
    for step in range(4):
        train(others, plain, range(step, step + 1))
        change(optimizer)
        train(params, optimizer, range(step, step + 1))
    assert_same(everything(optimizer), everything(plain))


@every_rule
def test_a_group_that_is_taken_away_is_left_alone(name: str) -> None:
    params = [*parameters().values()]
    optimizer = description(name).attach([{"params": [p]} for p in params])
    train(params, optimizer, range(2))
    before = params[1].detach().clone()
    del optimizer.param_groups[1]
    train(params, optimizer, range(2, 4))
    assert torch.equal(params[1], before)
    alone = parameters()["c"]
    train_alone = description(name).attach([alone])
    for step in range(4):
        give(params, step)
        alone.grad = params[2].grad
        train_alone.step()
    assert torch.equal(params[2], alone)


@every_rule
def test_a_group_added_in_mid_run_starts_from_the_beginning(name: str) -> None:
    params = [*parameters().values()]
    optimizer = description(name).attach(params[:2])
    for step in range(4):
        if step == 2:
            optimizer.add_param_group({"params": params[2:], "lr": 0.01})
        give(params, step)
        optimizer.step()
    runs = {2: parameters(), 0: parameters()}
    early = description(name).attach([runs[0]["a"], runs[0]["b"]])
    late = description(name).attach([{"params": [runs[2]["c"]], "lr": 0.01}])
    for step in range(4):
        give([*runs[0].values()], step)
        early.step()
        if step >= 2:
            give([*runs[2].values()], step)
            late.step()
    assert_same([p.detach() for p in params], [runs[0]["a"].detach(), runs[0]["b"].detach(), runs[2]["c"].detach()])


# -- autograd and threads --------------------------------------------------------------------------


@every
def test_only_what_was_updated_is_a_new_version(name: str) -> None:
    params, optimizer = attached(name)
    for step in range(3):
        give(params, step)
        params[step].grad = None
        loss = sum((p**2).sum() for p in params)
        before = [p._version for p in params]
        optimizer.step()
        assert [p._version > old for p, old in zip(params, before, strict=True)] == [n != step for n in range(3)]
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()  # type: ignore[union-attr]


@every
def test_the_number_of_threads_changes_no_bit(name: str) -> None:
    runs = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        params = {n: nn.Parameter(torch.rand(size) - 0.5) for n, size in (("a", 150_001), ("b", 66_000), ("c", 5))}
        optimizer = description(name).attach(params.items())
        train([*params.values()], optimizer, range(2))
        runs.append(everything(optimizer))
    torch.set_num_threads(1)
    assert_same(runs[1], runs[0])
    assert_same(runs[2], runs[0])


CYCLED = {
    "GradientDescentMomentum": "momentum",
    "Adam": "betas",
    "AdamW": "betas",
    "Lion": "betas",
    "MultiOptimizer": "betas",
}


@pytest.mark.parametrize("name", CYCLED)
def test_momentum_or_betas_are_cycled(name: str) -> None:
    """torch's schedulers look into `defaults` for what they cycle; in a mixture with betas that is those."""
    params, optimizer = attached(name)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5)
    seen = []
    for step in range(4):
        train(params, optimizer, range(step, step + 1))
        scheduler.step()
        value = optimizer.param_groups[0][CYCLED[name]]
        seen.append(value if CYCLED[name] == "momentum" else value[0])
    assert max(seen) - min(seen) > 0.08


@pytest.mark.parametrize("name", sorted(set(EXPORTED) - set(CYCLED) - {"ShiftAdaMax"}))
def test_what_has_neither_momentum_nor_betas_is_refused_by_the_scheduler(name: str) -> None:
    _, optimizer = attached(name)
    with pytest.raises(ValueError, match="must support momentum or beta1 with `cycle_momentum`"):
        torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=5)
