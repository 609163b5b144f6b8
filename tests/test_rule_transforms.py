"""Transforms of rules: states, numbers, views, options and docstrings compose; what collides is refused by name."""

from __future__ import annotations

import copy
import gc
import inspect
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rule_cases import PlainLayer
from torch import Tensor, nn

from neon.arguments import positive, unit_interval
from neon.commands.optimizer_text import parse_optimizer
from neon.commands.show import describe
from neon.engine import compilations
from neon.optimizers import (
    WEIGHT,
    Adam,
    AdamW,
    GradientDescentMomentum,
    Lion,
    MultiOptimizer,
    Number,
    Optimizer,
    RMSProp,
    Schedule,
    ScheduleFree,
    State,
    Transform,
)
from neon.optimizers.functions import where

pytestmark = pytest.mark.usefixtures("one_thread")


class Careful(Transform):
    """Leaves alone what would go up the gradient."""

    @staticmethod
    def around(inner, w, g):  # type: ignore[no-untyped-def]
        """w ← w + Δ where Δ·g < 0."""
        change = inner(w, g) - w
        return w + where(change * g < 0, change, 0.0)


class Slow(Transform):
    """A slow weight, which the other follows; it is what is evaluated."""

    pull = Number(0.5, unit_interval, meaning="in [0, 1]")
    pace = Number(2.0, positive, meaning="> 0")

    @staticmethod
    def around(inner, w, g, slow=State(WEIGHT), *, lr, pull, pace):  # type: ignore[no-untyped-def]
        w = inner(w, g, lr=pace * lr)
        return w, slow + pull * (w - slow)

    @staticmethod
    def view(w, slow):  # type: ignore[no-untyped-def]
        return slow


def net() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


def train(model: nn.Module, optimizer: Any, *steps: int) -> None:
    for step in steps:
        for place, param in enumerate(model.parameters()):
            param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(100 * step + place))
        optimizer.step()


def bits(model: nn.Module, optimizer: Any) -> list[Tensor]:
    return [t.detach().clone() for p in model.parameters() for t in (p, *optimizer.state[p].values())]


# -- composition -----------------------------------------------------------------------------------


def test_a_step_is_the_inner_rules_step_within_the_outer_one() -> None:
    model, by_hand = net(), net()
    optimizer = Slow(Adam(learning_rate=0.01), pull=0.25).attach(model)
    adam = Adam(learning_rate=0.02).attach(by_hand)
    slow = [p.detach().clone() for p in by_hand.parameters()]
    for step in range(4):
        train(model, optimizer, step)
        train(by_hand, adam, step)
        slow = [s + 0.25 * (p.detach() - s) for s, p in zip(slow, by_hand.parameters(), strict=True)]
    assert all(map(torch.equal, model.parameters(), by_hand.parameters()))
    for param, other, expected in zip(model.parameters(), by_hand.parameters(), slow, strict=True):
        state = optimizer.state[param]
        assert [*state] == ["step", "slow", "exp_avg", "exp_avg_sq"]
        assert torch.equal(state["slow"], expected)
        assert torch.equal(state["exp_avg"], adam.state[other]["exp_avg"])
    with optimizer.evaluating():
        assert all(map(torch.equal, model.parameters(), slow))


def test_careful_leaves_alone_what_goes_up() -> None:
    w = nn.Parameter(torch.ones(2))
    optimizer = Careful(GradientDescentMomentum(0.1, 0.5)).attach([w])
    for g in ([1.0, 1.0], [1.0, -0.25]):  # the velocity of the second is −0.05 + 0.025
        w.grad = torch.tensor(g)
        optimizer.step()
    torch.testing.assert_close(w.detach(), torch.tensor([0.75, 0.9]))
    torch.testing.assert_close(optimizer.state[w]["velocity"], torch.tensor([-0.15, -0.025]))


def test_the_inner_rule_varies_as_it_does_alone() -> None:
    """Without momentum there is no velocity."""
    w = nn.Parameter(torch.ones(2))
    optimizer = Careful(GradientDescentMomentum(0.1, 0.0)).attach([w])
    w.grad = torch.ones(2)
    optimizer.step()
    assert [*optimizer.state[w]] == ["step"]
    optimizer.param_groups[0]["momentum"] = 0.5
    optimizer.step()
    assert [*optimizer.state[w]] == ["step", "velocity"]


def test_transforms_of_transforms() -> None:
    model = net()
    optimizer = Slow(Careful(Lion(learning_rate=0.01)), pull=0.25).attach(model)
    train(model, optimizer, 0, 1)
    assert [*optimizer.state[model[0].weight]] == ["step", "slow", "exp_avg"]
    with_view = Careful(ScheduleFree(AdamW())).attach(net())
    assert with_view._rules.settings(with_view.param_groups[0]).view is not None
    assert "k" in with_view.param_groups[0]


def test_one_rule_for_each_pair_however_often_it_is_made() -> None:
    one, other = Slow(Adam()), Slow(Adam(), pull=0.25)
    programs = {id(each.settings(each.group()).program) for each in (one, other, copy.deepcopy(one), one)}
    assert len(programs) == 1
    model = net()
    optimizer = one.attach(model)
    train(model, optimizer, 0)
    kernels = compilations()
    train(model, optimizer, 1)
    twin = net()
    train(twin, other.attach(twin), 0)
    assert compilations() == kernels


def test_what_was_composed_goes_with_those_who_hold_it() -> None:
    def step() -> list[weakref.ref[Any]]:
        class Short(Optimizer):
            rule = staticmethod(lambda w, g, *, lr=0.1: w - lr * g)

        w = nn.Parameter(torch.ones(2))
        w.grad = torch.ones(2)
        description = Slow(Short())
        optimizer = description.attach([w])
        optimizer.step()
        optimizer.eval()
        rule = description.select_rule(description.group())
        return [weakref.ref(each) for each in (Short, rule, description.settings(description.group()).program)]

    references = step()
    gc.collect()
    gc.collect()
    assert [reference() for reference in references] == [None] * 3


# -- an optimizer like any other -------------------------------------------------------------------


def test_options_are_those_of_the_inner_optimizer() -> None:
    inner = Adam(gradient_clip_norm=1.0, state_dtype="bfloat16", schedule=Schedule([1], 0.5), name="inner", seed=3)
    made = Slow(inner)
    assert (made.gradient_clip_norm, made.state_dtype, made.name, made.seed) == (1.0, "bfloat16", "inner", 3)
    assert made.schedule is inner.schedule
    assert Slow(inner, name="outer").name == "outer"
    assert Slow(Adam()).name is None  # "adam" is nobody's wish
    assert made.group()["gradient_clip_norm"] == 1.0
    assert Slow(AdamW(wdecay=0.5), wdecay=0.25).group()["weight_decay"] == 0.25
    assert Slow(Adam(wdecay=0.5)).group()["weight_decay"] == 0.5
    with pytest.raises(ValueError, match="gradient_clip_norm was given to Adam and to Slow around it"):
        Slow(inner, gradient_clip_norm=2.0)


def test_numbers_and_words() -> None:
    made = Slow(Adam(), 0.25)
    assert made.hyperparameters() == {"lr": 0.001, "betas": (0.9, 0.999), "eps": 1e-8, "pull": 0.25, "pace": 2.0}
    made.inner.learning_rate = 0.5
    made.pull = 0.125
    assert (made.group()["lr"], made.group()["pull"]) == (0.5, 0.125)
    assert [*inspect.signature(Slow).parameters][:4] == ["inner", "pull", "pace", "name"]
    optimizer = made.attach(net())
    optimizer.set("pull", 0.75, layers="2")
    with pytest.raises(ValueError, match=r"pull must be in the interval \[0, 1\]"):
        optimizer.set("pull", 2.0)
    with pytest.raises(ValueError, match="Write 'lr'"):
        made.attach([{"params": [nn.Parameter(torch.ones(1))], "learning_rate": 0.1}])


@pytest.mark.parametrize("way", [copy.deepcopy, copy.copy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_of_descriptions(way: Callable[[Any], Any]) -> None:
    made = Slow(Careful(RMSProp(gradient_clip_value=0.5)), pull=0.25, seed=4)
    found = way(made)
    assert (repr(found), found.group(), found.seed) == (repr(made), made.group(), 4)


@pytest.mark.parametrize("way", ["state_dict", "pickle", "deepcopy"])
def test_resumed_to_the_bit(way: str) -> None:
    model = net()
    optimizer = Slow(Careful(Adam())).attach(model)
    train(model, optimizer, 0, 1)
    if way == "state_dict":
        fresh = copy.deepcopy(model)
        resumed = Slow(Careful(Adam())).attach(fresh)
        resumed.load_state_dict(optimizer.state_dict())
    elif way == "pickle":
        fresh, resumed = pickle.loads(pickle.dumps((model, optimizer)))
    else:
        fresh, resumed = copy.deepcopy((model, optimizer))
    for each in ((model, optimizer), (fresh, resumed)):
        train(*each, 2)
    assert all(map(torch.equal, bits(model, optimizer), bits(fresh, resumed)))


def test_in_mappings_and_layer_lists() -> None:
    model, other = net(), net()
    mapping = MultiOptimizer({"default": Slow(Adam()), "2": Careful(Lion())}, gradient_clip_norm=1.0)
    attached = mapping.attach(model)
    layers = [PlainLayer([*layer.parameters()]) for layer in (other[0], other[2])]
    alone = MultiOptimizer({"default": Slow(Adam()), "PlainLayer": Slow(Adam())})
    for step in range(3):
        train(model, attached, step)
        for a, b in zip(other.parameters(), model.parameters(), strict=True):
            a.grad = b.grad
        alone.optimize(layers, 0)
    expected = net()
    optimizer = Slow(Adam()).attach(expected)
    train(expected, optimizer, 0, 1, 2)
    assert all(map(torch.equal, other.parameters(), expected.parameters()))
    with attached.evaluating():
        assert torch.equal(model[0].weight, attached.state[model[0].weight]["slow"])


def test_it_prints_shows_and_is_read() -> None:
    made = Slow(Careful(Lion(learning_rate=0.5, gradient_clip_norm=1.0)), seed=2)
    assert (
        repr(made)
        == "Slow(Careful(Lion(lr=0.5, betas=(0.9, 0.99), gradient_clip_norm=1.0)), pull=0.5, pace=2.0, seed=2)"
    )
    page = describe(made)
    for part in (
        "w ← w + Δ where Δ·g < 0.",
        "around lion:",
        "One step of Lion",
        "slow ←",
        "exp_avg ←",
        "─── at evaluation ───",
        "w ← slow",
    ):
        assert part in page
    spec = parse_optimizer("ScheduleFree(AdamW(learning_rate=0.5), r=1)")
    assert repr(spec.build()) == repr(ScheduleFree(AdamW(learning_rate=0.5), r=1))


# -- what is refused -------------------------------------------------------------------------------


def around(function: Callable[..., Any], **attributes: Any) -> type[Transform]:
    return type("Odd", (Transform,), {"around": staticmethod(function), **attributes})


class ByHand(Optimizer):
    def optimize(self, layer_list: Any, epoch: int) -> None:
        pass


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no optimizer": (lambda: Careful(0.1), r"inner must be an optimizer, as in Careful\(Adam\(\)\)\. .*inner=0\.1"),
    "a mapping": (lambda: Careful(MultiOptimizer({"default": Adam()})), "put it around each optimizer within"),
    "a step by hand": (lambda: Careful(ByHand()), "ByHand has an optimize.. of its own"),
    "no rule": (lambda: Careful(Optimizer()), "neither a rule nor an optimize"),
    "no around": (lambda: Transform(Adam()), "Transform has no around"),
    "two states": (lambda: Slow(Slow(Adam())), "both have|both have the number pull"),
    "a state twice": (
        lambda: around(lambda inner, w, g, exp_avg: (inner(w, g), exp_avg))(Adam()),
        "and adam, which it is around, both have exp_avg: choose another name",
    ),
    "a number twice": (
        lambda: around(lambda inner, w, g, *, eps: inner(w, g) + eps, eps=Number(0.1, positive))(Adam()),
        "Odd and Adam, which it is around, both have the number eps",
    ),
    "a number that nobody has": (
        lambda: around(lambda inner, w, g, *, rho: inner(w, g) + rho)(Adam()), "Odd reads rho, which Adam.*has not"
    ),
    "a number that is not read": (
        lambda: around(lambda inner, w, g: inner(w, g), pull=Number(0.1, positive)), "Odd.pull is the rule's 'pull'"
    ),
    "an unknown argument": (lambda: Slow(Adam(), push=0.1), "Slow has no argument 'push'"),
    "called twice": (
        lambda: around(lambda inner, w, g: inner(inner(w, g), g))(Adam()).attach(net()), "It was called 2 times"
    ),
    "never called": (lambda: around(lambda inner, w, g: w - g)(Adam()).attach(net()), "It was called 0 times"),
    "no gradient": (
        lambda: around(lambda inner, w: inner(w, w))(Adam()), r"must take the inner rule's step, the weight"
    ),
    "two views": (
        lambda: around(lambda inner, w, g: inner(w, g), view=staticmethod(lambda w: w))(Slow(Adam())).attach(net()),
        "Odd and Slow each say what a weight is at evaluation",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_had_is_refused_by_name(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_numbers_of_the_inner_optimizer_are_set_through_the_transform() -> None:
    free: Any = ScheduleFree(AdamW())
    free.learning_rate, free.warmup_steps = 0.5, 3
    assert (free.learning_rate, free.group()["lr"], free.inner.learning_rate) == (0.5, 0.5, 0.5)
    assert free.group()["warmup_steps"] == 3
    with pytest.raises(ValueError, match="beta_1 must be"):
        free.beta_1 = 2.0
    with pytest.raises(AttributeError, match="ScheduleFree has no rate"):
        free.rate  # noqa: B018
