"""Optimizers written by hand in a mapping: they come first, for they may refuse; and norms over both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from one_number import Plain

from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer, get_param_list


def descent(rate: float = 1.0, momentum: float = 0.0) -> GradientDescentMomentum:
    return GradientDescentMomentum(rate, momentum)


# -- optimizers written by hand come first: they may refuse ----------------------------------------


class Refusing(Optimizer):
    """As neon documents it; when `refuses` is set it raises an error before it writes."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses = False
        self.seen: list[float] = []

    def optimize(self, layer_list: Any, epoch: int) -> None:
        if self.refuses:
            raise ValueError("refused")
        for (param, grad), _ in get_param_list(layer_list):
            self.seen.append(grad.item())
            param[:] = param - grad / self.be.bsz


@pytest.mark.parametrize("bound", [None, 1.0])
@pytest.mark.parametrize("when", ["first", "later"])
def test_what_is_refused_by_hand_leaves_the_others_as_they_were(when: str, bound: float | None) -> None:
    def layers_and_step() -> tuple[list[Plain], Refusing, Callable[[], None]]:
        layers, by_hand = [Plain(3.0, "a"), Plain(4.0, "b")], Refusing()
        opt = MultiOptimizer({"default": Adam(learning_rate=0.1), "b": by_hand}, gradient_clip_norm=bound)
        return layers, by_hand, lambda: opt.optimize(layers, 0)

    (layers, by_hand, step), (control, _, undisturbed) = layers_and_step(), layers_and_step()
    steps = 2 if when == "later" else 0
    for _ in range(steps):
        step()
    before = [[t.clone() for t in (layer.w, *layer.states)] for layer in layers]
    by_hand.refuses = True
    with pytest.raises(ValueError, match="refused"):
        step()
    for layer, kept in zip(layers, before, strict=True):
        assert len(layer.states) == len(kept) - 1
        assert all(map(torch.equal, (layer.w, *layer.states), kept))
    by_hand.refuses = False
    step()  # and it goes on, with the right count
    for _ in range(steps + 1):
        undisturbed()
    assert all(torch.equal(layer.w, other.w) for layer, other in zip(layers, control, strict=True))


def test_what_the_rules_refuse_is_refused_before_anything_is_done_by_hand() -> None:
    by_hand, ours = Plain(1.0, "b"), Plain(1.0, "a")
    ours.g = torch.ones(3, dtype=torch.float64)
    opt = Refusing()
    with pytest.raises(ValueError, match=r"gradient of parameter 'a' has shape \(3,\)"):
        MultiOptimizer({"default": Adam(), "b": opt}).optimize([by_hand, ours], 0)
    ours.g = by_hand.w  # what is updated by hand may be anything, but no memory of ours
    ours.states = [torch.zeros(1, dtype=torch.float64)] * 2
    with pytest.raises(ValueError, match="shares memory"):
        MultiOptimizer({"default": Adam(), "b": opt}).optimize([by_hand, ours], 0)
    assert (opt.seen, by_hand.w.item()) == ([], 0)


def test_norms_over_both_are_those_of_before_either_was_updated() -> None:
    """Two levels: 3, 4 and 12 in the outer norm, 4 and 12 in the inner one, and each scaled by what it is in."""
    layers = [Plain(3.0, "a"), Plain(4.0, "b"), Plain(12.0, "c")]
    inner = MultiOptimizer({"default": descent(), "b": Refusing()}, gradient_clip_norm=1.0)
    opt = MultiOptimizer({"default": inner, "a": descent()}, gradient_clip_norm=6.5)
    opt.optimize(layers, 0)
    outer = 6.5 / 13
    within = 1.0 / (outer * np.hypot(4.0, 12.0))
    expected = [-3 * outer, -4 * outer * within, -12 * outer * within]
    assert [layer.w.item() for layer in layers] == pytest.approx(expected, rel=1e-14)


class Moving(Optimizer):
    """Gives the weights of another layer other memory while it is at it, as some code of a user's might."""

    def __init__(self, other: Plain) -> None:
        super().__init__()
        self.other = other

    def optimize(self, layer_list: Any, epoch: int) -> None:
        self.other.w.data = self.other.w.data.clone()


def test_weights_that_move_while_others_are_updated_by_hand_are_found_again() -> None:
    ours, by_hand = Plain(1.0, "a"), Plain(1.0, "b")
    opt = MultiOptimizer({"default": descent(1.0, 0.5), "b": Moving(ours)})
    for expected in (-1, -2.5, -4.25):
        opt.optimize([ours, by_hand], 0)
        assert ours.w.item() == expected
    assert len(ours.states) == 1


# -- constructors that do not call that of the base class ------------------------------------------


class Bare(Optimizer):
    def __init__(self) -> None:
        pass

    def optimize(self, layer_list: Any, epoch: int) -> None:
        for (param, grad), _ in get_param_list(layer_list):
            param[:] = param - grad


class BareRule(Optimizer):
    def __init__(self) -> None:
        pass

    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any = 0.5) -> Any:
        return w - lr * g


@pytest.mark.parametrize(("kind", "moved"), [(Bare, -1), (BareRule, -0.5)])
def test_a_constructor_need_not_call_that_of_optimizer(kind: type[Optimizer], moved: float) -> None:
    layer, opt = Plain(), kind()
    assert repr(opt).startswith(kind.__name__)
    MultiOptimizer({"default": opt}).optimize([layer], 0)
    opt.optimize([layer], 0)
    assert layer.w.item() == 2 * moved
    assert kind.__name__ in MultiOptimizer({"default": opt}).table([layer])
