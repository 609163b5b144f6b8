"""One weight in several layers of a list: updated once, by the sum of the gradients that its uses bring."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neon.initializers import Gaussian
from neon.layers import Linear
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer, get_param_list


class Tied:
    """A layer that gives a weight, or a view of it, which others may give too."""

    def __init__(self, w: Tensor, g: Tensor | None, name: str | None = None, view: Any = lambda w: w) -> None:
        self.w, self.g, self.name, self.view = w, g, name, view
        self.states: list[Tensor] = []

    def get_params(self) -> Any:
        return (self.view(self.w), self.g), self.states


def full(value: float) -> Tensor:
    return torch.full((2, 3), value, dtype=torch.float64)


def descent(rate: float = 1.0, momentum: float = 0.0, **options: Any) -> GradientDescentMomentum:
    return GradientDescentMomentum(rate, momentum, **options)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "one object": lambda w: w,
    "the data": lambda w: w.data,
    "a view": lambda w: w.view(2, 3),
    "a slice": lambda w: w[:],
}
GRADIENTS: dict[str, tuple[list[float | None], float]] = {
    "both": ([1.0, 2.0], -3),
    "the second": ([None, 3.0], -3),
    "the first": ([3.0, None], -3),
    "three": ([1.0, None, 2.0], -3),
}


@pytest.mark.parametrize("gradients", GRADIENTS)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("mapping", [False, True])
def test_the_sum_of_gradients_counts_once(view: str, gradients: str, mapping: bool) -> None:
    given, expected = GRADIENTS[gradients]
    w = full(0.0)
    layers = [Tied(w, None if g is None else full(g), view=VIEWS[view]) for g in given]
    opt: Optimizer = MultiOptimizer({"default": descent()}) if mapping else descent()
    for update in (1, 2):
        opt.optimize([layers[0], layers[1:]], 0)
        assert (w == expected * update).all()
    assert all(layer.g is None or (layer.g == g).all() for layer, g in zip(layers, given, strict=True))


def test_the_list_has_a_tied_weight_once_with_the_sum() -> None:
    w = full(0.0)
    layers = [Tied(w, full(1.0)), Tied(w.data, full(2.0)), Tied(full(0.0), full(5.0)), Tied(w, None)]
    found = get_param_list(layers)
    assert [grad.unique().item() for (_, grad), _ in found] == [3, 5]
    assert found[0][1] is layers[0].states
    assert found[0][0][0] is w


@pytest.mark.parametrize("reordered", [False, True])
def test_states_are_those_of_one_weight(reordered: bool) -> None:
    """Of which the list that the first layer had is used, whatever the order is later."""
    layers = [Tied(w := full(0.5), full(0.25)), Tied(w, full(0.5))]
    alone, opt = Tied(full(0.5), full(0.75)), Adam(learning_rate=0.1)
    for update in range(4):
        opt.optimize(layers[::-1] if reordered and update else layers, 0)
        Adam(learning_rate=0.1).optimize([alone], 0)
    assert torch.equal(w, alone.w)
    assert (len(layers[0].states), len(layers[1].states)) == (2, 0)
    assert all(map(torch.equal, layers[0].states, alone.states))


def test_one_gradient_that_both_give_is_one_gradient() -> None:
    """As torch's tied modules give it: both uses have added to it."""
    w, g = full(0.0), full(3.0)
    descent().optimize([Tied(w, g), Tied(w, g.data)], 0)
    assert (w == -3).all()
    net = nn.ModuleDict({name: nn.Linear(2, 2, bias=False) for name in "ab"})
    net["b"].weight = net["a"].weight
    net["a"].weight.data.zero_()
    net["a"].weight.grad = torch.full((2, 2), 3.0)
    descent().optimize([net], 0)
    assert (net["b"].weight == -3).all()  # type: ignore[union-attr]


def test_modules_tied_by_their_data() -> None:
    net = nn.ModuleDict({name: nn.Linear(2, 2, bias=False) for name in "ab"})
    net["a"].weight.data.zero_()  # type: ignore[union-attr]
    net["b"].weight = nn.Parameter(net["a"].weight.data)  # type: ignore[arg-type, union-attr]
    for name, value in (("a", 1.0), ("b", 2.0)):
        net[name].weight.grad = torch.full((2, 2), value)
    for update in (1, 2):
        descent().optimize([net], 0)
        assert (net["a"].weight == -3 * update).all()  # type: ignore[union-attr]


def test_layers_of_neons_and_of_torchs_share_a_weight() -> None:
    own, torchs = Linear(2, Gaussian()), nn.Linear(2, 2, bias=False)
    own(torch.ones(1, 2))
    own.weight.data.zero_()
    torchs.weight = nn.Parameter(own.weight.data)
    own.weight.grad, torchs.weight.grad = torch.ones(2, 2), torch.full((2, 2), 2.0)
    descent().optimize([own, Tied(own.weight.data, torch.full((2, 2), 4.0)), torchs], 0)
    assert (own.weight == -7).all()


def test_norms_see_the_sum_once() -> None:
    w, other = torch.zeros(1), torch.zeros(1)
    layers = [Tied(w, torch.tensor([1.0])), Tied(w, torch.tensor([2.0])), Tied(other, torch.tensor([4.0]))]
    for opt in (descent(gradient_clip_norm=2.5), MultiOptimizer({"default": descent()}, gradient_clip_norm=2.5)):
        w.zero_(), other.zero_()
        opt.optimize(layers, 0)
        assert (w.item(), other.item()) == pytest.approx((-1.5, -2.0))


@pytest.mark.parametrize("frozen", [False, True])
def test_the_strongest_key_of_the_uses_holds(frozen: bool) -> None:
    w = full(0.0)
    layers = [Tied(w, full(1.0), "a"), Tied(w, full(2.0), "b")]
    MultiOptimizer({"default": descent(), "b": None if frozen else descent(10.0)}).optimize(layers, 0)
    assert (w == (0 if frozen else -30)).all()


def test_random_bits_are_those_of_one_weight() -> None:
    start = torch.ones(4000, dtype=torch.bfloat16)
    g = torch.full_like(start, 2.0**-11)
    pair = [Tied(w := start.clone(), g), Tied(w, g.clone())]
    alone = [Tied(start.clone(), g + g)]
    opt = descent(stochastic_round=True)
    for _ in range(5):
        opt.optimize(pair, 0)
        opt.optimize(alone, 0)
    assert torch.equal(w, alone[0].w)
    assert not torch.equal(w, start)


@pytest.mark.parametrize("which", [0, 1])
def test_a_gradient_that_does_not_fit_is_refused_and_not_spread(which: int) -> None:
    w = full(1.0)
    layers = [Tied(w, full(1.0)), Tied(w, full(1.0))]
    layers[which].g = torch.ones(3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"gradient of parameter 'Tied' has shape \(3,\)"):
        descent().optimize(layers, 0)
    assert (w == 1).all()


def test_weights_that_overlap_otherwise_are_refused() -> None:
    w = full(1.0)
    layers = [Tied(w, full(1.0)), Tied(w.T, full(1.0).T)]
    with pytest.raises(ValueError, match="shares memory with parameter"):
        descent().optimize(layers, 0)
    assert (w == 1).all()


def test_parts_of_one_buffer_are_weights_of_their_own() -> None:
    buffer = torch.zeros(4, 2, 3, dtype=torch.float64)
    layers = [Tied(part, full(float(i))) for i, part in enumerate(buffer)]
    descent().optimize(layers, 0)
    assert buffer[:, 0, 0].tolist() == [0, -1, -2, -3]


def test_a_copy_of_tied_layers_is_tied() -> None:
    w = full(0.0)
    layers = copy.deepcopy([Tied(w, full(1.0)), Tied(w, full(2.0))])
    descent(1.0, 0.5).optimize(layers, 0)
    descent(1.0, 0.5).optimize(layers, 0)
    assert (layers[1].w == -3 - 4.5).all()
    assert not w.any()
