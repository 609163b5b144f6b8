"""What a rule of a user's own may hold: conditions on numbers, infinities, long chains; and what names are taken."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch

from neon.engine import use_backend
from neon.optimizers import GradientDescentMomentum, MultiOptimizer, Optimizer, get_param_list
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


@pytest.mark.parametrize("rule", [warms_up, bounded, chained, still, picks])
def test_it_runs_alike_on_every_backend(rule: Any) -> None:
    assert torch.equal(stepped(rule, "eager"), stepped(rule, "numba"))


def test_a_condition_on_the_step_is_met() -> None:
    moved = torch.linspace(-1, 1, 7) - stepped(warms_up, "numba", steps=2)
    torch.testing.assert_close(moved, 0.15 * torch.linspace(2, -1, 7))


def test_equality_of_symbols_is_no_condition() -> None:
    def rule(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
        return where(g == 0, w, w - lr * g)

    with pytest.raises(TypeError, match=r"where needs a condition.*equal\(a, b\)"):
        stepped(rule, "numba")


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
