"""Norms of mappings, over all that they hold: by hand, over tied weights, and beside optimizers written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from moved_parameters import multi, sgd
from torch import nn

from neon.optimizers import MultiOptimizer, Optimizer, get_param_list

# -- clipping by norms -----------------------------------------------------------------------------


class Scalar:
    """A layer with one number, whose gradient is given."""

    def __init__(self, name: str, gradient: float) -> None:
        self.name = name
        self.w = torch.zeros(1, dtype=torch.float64)
        self.g = torch.tensor([gradient], dtype=torch.float64)
        self.states: list[torch.Tensor] = []

    def get_params(self) -> Any:
        return (self.w, self.g), self.states


def clipped(opt: Optimizer, gradients: dict[str, float], how: str) -> dict[str, float]:
    """The gradients that the rules see."""
    layers = [Scalar(name, g) for name, g in gradients.items()]
    if how == "optimize":
        opt.optimize(layers, 0)
        return {layer.name: -layer.w.item() for layer in layers}
    named = {layer.name: nn.Parameter(layer.w) for layer in layers}
    for layer in layers:
        named[layer.name].grad = layer.g
    opt.attach(named.items()).step()
    return {name: -p.item() for name, p in named.items()}


def chain() -> MultiOptimizer:
    leaf = sgd(1, gradient_clip_norm=1.5, gradient_clip_value=1.25)
    inner = MultiOptimizer({"default": sgd(1), "c": leaf}, gradient_clip_norm=3.25)
    return MultiOptimizer({"default": inner, "a": sgd(1)}, gradient_clip_norm=42.5)


def shared_norm(*, deep: bool) -> MultiOptimizer:
    shared = sgd(1, gradient_clip_norm=2.5)
    if deep:  # the wider bound is never reached: it must not part the shared optimizer in two
        return MultiOptimizer({"default": shared, "b": MultiOptimizer({"default": shared}, gradient_clip_norm=1e6)})
    return MultiOptimizer({"default": sgd(1), "a": shared, "b": shared})


# title: (optimizer, gradients, what is left of them)
NORMS: dict[str, tuple[Callable[[], Optimizer], dict[str, float], dict[str, float]]] = {
    "own, of one of two": (
        lambda: MultiOptimizer({"default": sgd(1, gradient_clip_norm=2.5), "c": sgd(1)}),
        {"a": 3, "b": 4, "c": 12},
        {"a": 1.5, "b": 2, "c": 12},
    ),
    "own, of both": (
        lambda: MultiOptimizer({"default": sgd(1, gradient_clip_norm=2.5), "c": sgd(1, gradient_clip_norm=3)}),
        {"a": 3, "b": 4, "c": 12},
        {"a": 1.5, "b": 2, "c": 3},
    ),
    "own, not reached": (
        lambda: MultiOptimizer({"default": sgd(1, gradient_clip_norm=5)}),
        {"a": 3, "b": 4},
        {"a": 3, "b": 4},
    ),
    "shared by two keys": (lambda: shared_norm(deep=False), {"a": 3, "b": 4, "c": 12}, {"a": 1.5, "b": 2, "c": 12}),
    "shared at two depths": (lambda: shared_norm(deep=True), {"a": 3, "b": 4}, {"a": 1.5, "b": 2}),
    "global": (lambda: multi({"c": 1}, gradient_clip_norm=6.5), {"a": 3, "b": 4, "c": 12}, {"a": 1.5, "b": 2, "c": 6}),
    # 85 · ½; then ‖(5, 12)‖ · ½ = 6.5, halved again; then 12 · ¼ = 3, halved, and cut to 1.25
    "a chain of three, then by value": (chain, {"a": 84, "b": 5, "c": 12}, {"a": 42, "b": 1.25, "c": 1.25}),
}


@pytest.mark.parametrize("how", ["attach", "optimize"])
@pytest.mark.parametrize("title", NORMS)
def test_norms_by_hand(title: str, how: str) -> None:
    opt, gradients, expected = NORMS[title]
    assert clipped(opt(), gradients, how) == pytest.approx(expected, rel=1e-14)


def test_norms_are_of_the_batch_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    opt = chain()
    monkeypatch.setattr(opt.be, "bsz", 8)
    found = clipped(opt, {"a": 8 * 84, "b": 8 * 5, "c": 8 * 12}, "optimize")
    assert found == pytest.approx({"a": 42, "b": 1.25, "c": 1.25}, rel=1e-14)


def test_bounds_may_change_between_steps() -> None:
    opt = multi({}, gradient_clip_norm=5.0)
    assert clipped(opt, {"a": 6, "b": 8}, "optimize") == pytest.approx({"a": 3, "b": 4}, rel=1e-14)
    opt.gradient_clip_norm = 2.5
    assert clipped(opt, {"a": 6, "b": 8}, "optimize") == pytest.approx({"a": 1.5, "b": 2}, rel=1e-14)


# -- optimizers written by hand --------------------------------------------------------------------


class ByHand(Optimizer):
    """As neon documents it; remembers what it was given."""

    def __init__(self, rate: float, name: str | None = None) -> None:
        super().__init__(name=name)
        self.rate = rate
        self.seen: list[tuple[int, int]] = []

    def optimize(self, layer_list: Any, epoch: int) -> None:
        entries = get_param_list(layer_list)
        self.seen.append((len(entries), epoch))
        for (param, grad), states in entries:
            if len(states) == 0:
                states.append(self.be.zeros_like(grad))
            states[0][:] = states[0] + 1
            param[:] = param - self.rate * grad / self.be.bsz


def test_a_hand_written_optimizer_serves_its_layers() -> None:
    by_hand = ByHand(3.0)
    opt = MultiOptimizer({"default": sgd(1), "b": by_hand, "c": MultiOptimizer({"default": by_hand})})
    layers = [Scalar(name, 1.0) for name in "abcd"]
    for epoch in (4, 5):
        opt.optimize([layers[0], layers[1:]], epoch)
    assert [layer.w.item() for layer in layers] == [-2, -6, -6, -2]
    assert [[s.item() for s in layer.states] for layer in layers] == [[], [2], [2], []]
    assert by_hand.seen == [(2, 4), (2, 5)]


def test_a_global_norm_covers_a_hand_written_optimizer_too() -> None:
    opt = MultiOptimizer({"default": sgd(1), "b": ByHand(1.0)}, gradient_clip_norm=1.0)
    assert clipped(opt, {"a": 3, "b": 4}, "optimize") == pytest.approx({"a": 0.6, "b": 0.8}, rel=1e-14)


def test_a_hand_written_optimizer_cannot_be_attached() -> None:
    opt = MultiOptimizer({"default": sgd(1), "embed": ByHand(1.0)})
    with pytest.raises(TypeError, match=r"ByHand \(embed\) has an optimize\(\) of its own.*write it as a rule"):
        opt.attach(nn.Linear(2, 2))
