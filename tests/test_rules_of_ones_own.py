"""What a rule of a user's own may hold: conditions on numbers, infinities, long chains; and what names are taken."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from enum import Enum, StrEnum
from functools import lru_cache, reduce
from typing import Any

import numpy as np
import pytest
import torch
from rule_cases import PlainLayer

from neon.engine import use_backend
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer, Schedule, get_param_list
from neon.optimizers.functions import equal, norm, where


class Momentum(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, velocity: Any, *, lr: float = 0.01, momentum: float, step: Any) -> Any:
        velocity = momentum * velocity - lr * g
        return w + velocity, velocity


def test_its_signature_has_its_hyper_parameters_and_the_options() -> None:
    found = inspect.signature(Momentum).parameters
    options = inspect.signature(Optimizer).parameters
    assert [*found] == ["name", "lr", "momentum", *(name for name in options if name != "name")]
    assert (found["lr"].default, found["lr"].annotation) == (0.01, "float")
    assert found["momentum"].default is inspect.Parameter.empty
    assert all(found[name] == option for name, option in options.items())
    inspect.signature(Momentum).bind("mine", lr=0.1, momentum=0.9, gradient_clip_norm=1.0, schedule=None)
    with pytest.raises(TypeError, match="'learning_rate'"):
        inspect.signature(Momentum).bind(learning_rate=0.1, momentum=0.9)


def test_the_signature_of_a_constructor_of_ones_own_is_that_constructors() -> None:
    class Named(Momentum):
        def __init__(self, rate: float, **others: Any) -> None:
            super().__init__(lr=rate, momentum=0.9, **others)

    class ByHand(Optimizer):
        def __init__(self, rate: float = 0.1) -> None:
            super().__init__()

    class Unfit(Optimizer):
        rule = staticmethod(lambda weight: weight)

    assert [*inspect.signature(Named).parameters] == ["rate", "others"]
    assert [*inspect.signature(ByHand).parameters] == ["rate"]
    assert "gradient_clip_norm" in inspect.signature(Unfit).parameters
    with pytest.raises(TypeError, match=r"^Named has no argument 'momentun'\. Its arguments: rate\.$"):
        Named(0.1, momentun=0.5)


def stepped(rule: Any, backend: str, steps: int = 3, **arguments: Any) -> torch.Tensor:
    custom = type("Custom", (Optimizer,), {"rule": staticmethod(rule)})
    p = torch.nn.Parameter(torch.linspace(-1, 1, 7))
    with use_backend(backend):
        opt = custom(**arguments).attach([p])
        for _ in range(steps):
            p.grad = torch.linspace(2, -1, 7)
            opt.step()
    return p.detach()


def warms_up(w: Any, g: Any, *, lr: Any = 0.1, step: Any) -> Any:
    return w - lr * where(step < 2, 0.5 * g, g)


def bounded(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
    return where(g < math.inf, w - lr * g, w)


def chained(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
    for _ in range(220):
        g = g * 0.99 + lr
    return w - lr * g


def still(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
    return w


def picks(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
    return where(equal(g, 0.5), w, w - lr * g)


def compares(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
    return where(g == 0.5, w, w - lr * g * (w != g))


def counts(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
    """numpy's numbers on either side, and a condition as a number."""
    return np.float64(0.5) * w - np.float32(0.25) * g * (np.int64(0) < g) + (g - np.int64(1)) * lr


def powers(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
    size = 1.0 + abs(g)
    return w - lr * (size**-2 + size**0.5 + size**1.5 + size**-1 + size**2.5 + size**3 + size**-4 + size**1)


@pytest.mark.parametrize("rule", [warms_up, bounded, chained, still, picks, compares, counts, powers])
def test_it_runs_alike_on_every_backend(rule: Any) -> None:
    assert torch.equal(stepped(rule, "eager"), stepped(rule, "numba"))


@pytest.mark.parametrize("rule", [bounded, chained, picks, compares, counts, powers])
def test_it_is_the_same_function_of_tensors(rule: Any) -> None:
    w, g = torch.linspace(-1, 1, 7, dtype=torch.float64), torch.linspace(2, -1, 7, dtype=torch.float64)
    torch.testing.assert_close(stepped(rule, "numba", steps=1).double(), rule(w, g), rtol=1e-5, atol=1e-6)


@lru_cache
def cached(x: Any) -> Any:
    return x


# What a rule writes that would be decided once, when it is traced, or that it cannot have; and what it is told.
REFUSED: dict[str, tuple[Callable[[Any, Any, Any], Any], str]] = {
    "a branch on ==": (lambda w, g, step: g if step == 1 else w, r"cannot branch on .*step == 1.*where\(condition"),
    "a branch on !=": (lambda w, g, step: g if step != 1 else w, r"cannot branch on .*where\(condition"),
    "a branch on <": (lambda w, g, step: g if g < w else w, r"cannot branch on .*maximum\(a, b\)"),
    "in": (lambda w, g, step: g if step in (1, 2) else w, "cannot branch on"),
    "not": (lambda w, g, step: g if not step else w, "cannot branch on"),
    "and": (lambda w, g, step: where(g > 0 and w > 0, g, w), "cannot branch on"),
    "&": (lambda w, g, step: where((g > 0) & (w > 0), g, w), "cannot combine by"),
    "~": (lambda w, g, step: where(~(g > 0), g, w), "cannot combine by"),
    "max": (lambda w, g, step: max(w, g), r"maximum\(a, b\)"),
    "a set": (lambda w, g, step: {w, g}, "cannot hash"),
    "a key": (lambda w, g, step: {1: g}[step], "cannot hash"),
    "a cached function": (lambda w, g, step: cached(g), "cannot hash"),
    "a method": (lambda w, g, step: g.sqrt(), r"no \.sqrt\. Write sqrt\(x\)"),
    "abs": (lambda w, g, step: g.abs(), r"Write abs\(x\)"),
    "in place": (lambda w, g, step: g.clamp_(0, 1), r"Write clip\(x, low, high\)"),
    "a shape": (lambda w, g, step: g * g.shape[0], r"no \.shape\. Write operators"),
    "%": (lambda w, g, step: g * (step % 2), "write remainder\\(a, b\\)"),
    "//": (lambda w, g, step: g * (step // 2), "write remainder\\(a, b\\)"),
    "@": (lambda w, g, step: g @ w, "cannot multiply matrices"),
    "an index": (lambda w, g, step: g[0], "cannot take elements"),
    "an element set": (lambda w, g, step: g.__setitem__(0, 1), "cannot write into .*return the new value"),
    "iteration": (lambda w, g, step: sum(g), "cannot take elements"),
    "len": (lambda w, g, step: g / len(g), r"cannot take elements .*total\(x\)"),
    "contains": (lambda w, g, step: g * (0.0 in g), "cannot look into"),
    "int": (lambda w, g, step: g * int(step), "cannot turn into a number"),
    "range": (
        lambda w, g, step: reduce(lambda a, _: a * g, range(step), g),
        "cannot count or index with .*Write the number itself",
    ),
    "a format": (lambda w, g, step: g * float(f"{step:.0f}"), r"cannot format the run-time value step by '\.0f'"),
    "round": (lambda w, g, step: round(g), "cannot turn into a number"),
    "math": (lambda w, g, step: math.sqrt(g), "cannot turn into a number .*neon.optimizers.functions"),
    "numpy": (lambda w, g, step: np.sqrt(g), r"numpy\.sqrt .*Write sqrt\(x\)"),
    "numpy.where": (lambda w, g, step: np.where(g > 0, g, w), r"numpy\.where .*Write where\(condition, a, b\)"),
    "an array": (lambda w, g, step: np.ones(3) * g, "Received: a ndarray"),
    "as an array": (lambda w, g, step: np.asarray(g), "cannot make an array"),
    "torch": (lambda w, g, step: torch.sqrt(g), r"torch\.sqrt .*Write sqrt\(x\)"),
    "torch.where": (lambda w, g, step: torch.where(g > 0, g, w), r"Write where\(condition, a, b\)"),
    "a tensor": (lambda w, g, step: g * torch.tensor(2.0), "Received: a Tensor"),
    "a tensor first": (lambda w, g, step: torch.tensor(2.0) * g, "Received: a Tensor"),
    "no condition": (lambda w, g, step: where(g, g, w), "where needs a condition"),
    "None": (lambda w, g, step: where(step == None, g, w), "Received: a NoneType"),  # noqa: E711
    "a string": (lambda w, g, step: g + "x", "Received: a str"),
    "a condition returned": (lambda w, g, step: g > 0, r"must return an expression for 'w'.*where\(condition"),
    "an array returned": (lambda w, g, step: np.ones(10_000), "must return an expression for 'w'.*a ndarray"),
    "a long expression": (lambda w, g, step: reduce(lambda a, _: a * a + a, range(60), g).sqrt(), r"Write sqrt\(x\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_says_what_to_write(what: str) -> None:
    made, message = REFUSED[what]

    def rule(w: Any, g: Any, *, lr: Any = 0.1, step: Any) -> Any:
        return made(w, g, step)

    with pytest.raises((TypeError, AttributeError), match=message) as error:
        stepped(rule, "numba")
    assert len(str(error.value)) < 500


class Choice(Enum):
    NESTEROV = "nesterov"


class Word(StrEnum):
    NESTEROV = "nesterov"


@pytest.mark.parametrize(
    "value", [{"a": 1.0}, {1.0}, abs, 1j, Choice.NESTEROV, Word.NESTEROV, ((1.0, 2.0), 3.0), np.ones((2, 2))], ids=repr
)
def test_an_argument_is_a_number_or_steers(value: Any) -> None:
    """A symbol in place of anything else would be equal to nothing that the rule knows."""

    def rule(w: Any, g: Any, *, lr: Any = 0.1, chosen: Any = None) -> Any:
        return w if chosen is value else w - lr * g

    def by_default(w: Any, g: Any, *, lr: Any = 0.1, chosen: Any = value) -> Any:
        return rule(w, g, lr=lr, chosen=chosen)

    for made, given in ((rule, {"chosen": value}), (by_default, {})):
        with pytest.raises(TypeError, match="chosen must be a number, a bool, a string or None") as error:
            stepped(made, "eager", **given)
        assert len(str(error.value)) < 500


def test_a_tuple_is_given_for_a_tuple() -> None:
    def rule(w: Any, g: Any, *, lr: Any = 0.1, betas: Any = (0.9, 0.99)) -> Any:
        return w - lr * betas[1] * g

    for value in (0.9, None):
        with pytest.raises(TypeError, match=r"betas must be a tuple, as its default \(0\.9, 0\.99\) is"):
            stepped(rule, "eager", betas=value)


@pytest.mark.parametrize("start", [None, "zero", True, torch.zeros(3)], ids=str)
def test_a_state_starts_at_a_number(start: Any) -> None:
    def rule(w: Any, g: Any, velocity: Any = start, *, lr: Any = 0.1) -> Any:
        return w - lr * g, velocity

    with pytest.raises(TypeError, match=r"state velocity of the rule rule must start at a number"):
        stepped(rule, "eager")


def test_a_list_may_be_returned() -> None:
    def rule(w: Any, g: Any, velocity: Any, *, lr: Any = 0.1) -> Any:
        return [w - lr * g, velocity]

    assert not torch.equal(stepped(rule, "eager"), torch.linspace(-1, 1, 7))


def test_a_condition_on_the_step_is_met() -> None:
    moved = torch.linspace(-1, 1, 7) - stepped(warms_up, "numba", steps=2)
    torch.testing.assert_close(moved, 0.15 * torch.linspace(2, -1, 7))


@pytest.mark.parametrize("name", ["batch_size", "schedule", "wdecay", "updates", "frozen"])
def test_names_that_are_taken(name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"def rule(w, g, *, lr=0.1, {name}=1.0): return w", namespace)
    with pytest.raises(TypeError, match=f"uses {name}, which neon keeps for itself"):
        stepped(namespace["rule"], "eager")


def test_a_decay_is_given_once() -> None:
    def rule(w: Any, g: Any, *, lr: Any = 0.1, weight_decay: Any = 0.0) -> Any:
        return w - lr * (g + weight_decay * w)

    with pytest.raises(TypeError, match="has a weight_decay of its own"):
        stepped(rule, "eager", wdecay=0.5)
    assert not torch.equal(stepped(rule, "eager", weight_decay=0.5), stepped(rule, "eager"))


def state_of(opt: torch.optim.Optimizer, p: torch.Tensor) -> torch.Tensor:
    return opt.state[p]["velocity"]


@pytest.mark.parametrize("size", [40, 10])
def test_memory_of_a_state_that_is_swapped_is_seen(size: int) -> None:
    p = torch.nn.Parameter(torch.zeros(40))
    opt = GradientDescentMomentum(1.0, 0.5).attach([p])
    p.grad = torch.ones(40)
    opt.step()
    state_of(opt, p).data = torch.zeros(size)
    if size != 40:
        with pytest.raises(ValueError, match=r"A state of parameter .* has shape"):
            opt.step()
        return
    opt.step()
    assert state_of(opt, p).tolist() == [-1.0] * 40
    assert p.tolist() == [-2.0] * 40


def test_a_negated_view_is_read_with_its_sign() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch._neg_view(torch.ones(3))
    GradientDescentMomentum(0.1, 0.0).attach([p]).step()
    torch.testing.assert_close(p.detach(), torch.full((3,), 1.1))


def test_replaced_groups_are_read() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    opt = GradientDescentMomentum(0.1, 0.0).attach([p])
    opt.step()
    opt.param_groups = [dict(group, lr=0.0) for group in opt.param_groups]
    opt.step()
    torch.testing.assert_close(p.detach(), torch.full((3,), 0.9))


def test_a_refused_first_step_can_be_repeated() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    opt = GradientDescentMomentum(0.1, 0.0).attach([p])
    opt.param_groups[0]["lr"] = torch.tensor(math.nan)
    with pytest.raises(ValueError, match="lr must be a finite number"):
        opt.step()
    opt.param_groups[0]["lr"] = 0.1
    opt.step()
    torch.testing.assert_close(p.detach(), torch.full((3,), 0.9))


def test_a_norm_over_everything_counts_two_levels_and_hand_written_ones() -> None:
    class ByHand(Optimizer):
        def optimize(self, layer_list: Any, epoch: int) -> None:
            for (param, grad), _ in get_param_list(layer_list):
                param[:] = param - grad

    class Normed(Optimizer):
        @staticmethod
        def rule(w: Any, g: Any, *, lr: Any = 1.0) -> Any:
            return w - lr * g / norm(g)

    class Layer:
        def __init__(self, name: str, grad: float) -> None:
            self.name, self.entry = name, ((torch.zeros(1), torch.full((1,), grad)), [])

        def get_params(self) -> Any:
            return self.entry

    layers = [Layer("a", 3.0), Layer("b", 4.0)]
    MultiOptimizer({"default": Normed(), "b": ByHand()}, gradient_clip_norm=1.0).optimize(layers, 0)
    assert layers[0].entry[0][0].item() == pytest.approx(-1.0)
    assert layers[1].entry[0][0].item() == pytest.approx(-0.8)


@pytest.mark.parametrize(
    "name", ["rate", "batch_size", "by_hand", "rule_varies", "has_schedule", "counts_steps", "optimizer_mapping"]
)
def test_an_attribute_of_ones_own_may_have_any_public_name(name: str) -> None:
    class Own(Momentum):
        def __init__(self, value: Any, **options: Any) -> None:
            setattr(self, name, value)
            super().__init__(**options)

    def trained(optimizer: Optimizer) -> list[Any]:
        w, layer = torch.nn.Parameter(torch.ones(2)), PlainLayer([torch.nn.Parameter(torch.ones(2))])
        attached = MultiOptimizer({"default": optimizer}).attach([w])
        for epoch in range(2):
            w.grad = layer.parameters[0].grad = torch.ones(2)
            attached.step()
            optimizer.optimize([layer], epoch)
        return [w.tolist(), layer.parameters[0].tolist()]

    schedule = Schedule([1], 0.5)
    optimizer = Own("mine", momentum=0.9, schedule=schedule)
    assert trained(optimizer) == trained(Momentum(momentum=0.9, schedule=schedule))
    assert getattr(optimizer, name) == "mine"


def test_a_property_of_ones_own_is_set_and_read() -> None:
    class Halved(Adam):
        @property
        def learning_rate(self) -> float:  # type: ignore[override]
            return self._given / 2

        @learning_rate.setter
        def learning_rate(self, value: float) -> None:
            self._given = value

        @property
        def seed(self) -> int:  # type: ignore[override]
            return self._seed + 1

        @seed.setter
        def seed(self, value: int) -> None:
            self._seed = value

        @property
        def master(self) -> str | None:  # type: ignore[override]
            return self._master

        @master.setter
        def master(self, value: str | None) -> None:
            self._master = value

    made = Halved(learning_rate=0.5, seed=7)
    assert (made.group()["lr"], made.hyperparameters()["lr"], made.seed) == (0.25, 0.25, 8)
    assert made.group() | {"lr": 0.5} == Adam(learning_rate=0.5).group()
    with pytest.raises(ValueError, match="keeps every bit"):
        Halved(master="split", stochastic_round=True)
