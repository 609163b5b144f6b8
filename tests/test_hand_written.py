"""What an `optimize` written by hand is given in a MultiOptimizer: the layers themselves, with name and class."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from neon.initializers import Gaussian
from neon.layers import Affine, Linear
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer, Schedule, get_param_list


class ByHand(Optimizer):
    """As neon documents it; remembers its layers, and the gradients that it found."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[Any] = []
        self.gradients: list[float] = []

    def optimize(self, layer_list: Any, epoch: int) -> None:
        self.layers = list(layer_list)
        self.gradients = []
        for (param, grad), states in get_param_list(layer_list):
            if not states:
                states.append(torch.zeros_like(grad))
            states[0] += 1
            self.gradients.append(grad.flatten()[0].item())
            param[:] = param - grad

    @property
    def seen(self) -> list[str]:
        return [type(layer).__name__ for layer in self.layers]


class Conv:
    """A layer of one's own, with two parameters."""

    def __init__(self, name: str, *gradients: float | None) -> None:
        self.name = name
        self.parts = [((torch.zeros(1), None if g is None else torch.tensor([g])), list[Tensor]()) for g in gradients]

    def get_params(self) -> Any:
        return self.parts[0] if len(self.parts) == 1 else self.parts

    @property
    def values(self) -> list[float]:
        return [param.item() for (param, _), _ in self.parts]


class Slotted:
    """A layer without a dict of attributes."""

    __slots__ = ("name", "w")

    def __init__(self) -> None:
        self.name, self.w = "slotted", torch.zeros(1)

    def get_params(self) -> Any:
        return (self.w, torch.tensor([4.0])), []


def descent(rate: float = 1.0) -> GradientDescentMomentum:
    return GradientDescentMomentum(rate, 0.0)


def test_it_gets_the_layers_themselves() -> None:
    opt = ByHand()
    layers = [Conv("one", 1.0), Conv("two", 2.0, 3.0), Conv("three", 4.0)]
    MultiOptimizer({"default": descent(), "Conv": opt, "three": None}).optimize([layers[0], layers[1:]], 0)
    assert opt.layers == layers[:2]
    assert [layer.values for layer in layers] == [[-1], [-2, -3], [0]]


def test_it_gets_layers_that_have_no_gradient_at_present() -> None:
    """As it does outside of a mapping."""
    opt, layers = ByHand(), [Conv("one", None), Conv("two", 2.0, None)]
    MultiOptimizer({"default": opt}).optimize(layers, 0)
    assert opt.layers == layers
    assert opt.gradients == [2]


def test_it_gets_torchs_modules_and_neons_layers() -> None:
    neons, torchs = Affine(2, Gaussian(), name="affine"), nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    for p in (*nn.Sequential(neons, torchs)(torch.ones(1, 2)), *neons.parameters(), *torchs.parameters()):
        p.grad = torch.ones_like(p) if p.is_leaf else None
    opt = ByHand()
    MultiOptimizer({"default": opt}).optimize([neons, torchs], 0)
    assert opt.layers == [*neons.layers, *torchs]
    assert opt.seen == ["Linear", "Bias", "Linear", "LayerNorm"]


@pytest.mark.parametrize("share", ["weight", "bias"])
def test_of_a_layer_whose_parameters_are_split_it_gets_its_part(share: str) -> None:
    model = nn.ModuleDict({"linear": nn.Linear(2, 2)})
    linear: Any = model["linear"]
    for p in model.parameters():
        p.data.zero_()
        p.grad = torch.ones_like(p)
    opt = ByHand()
    MultiOptimizer({"default": descent(5.0), f"linear.{share}": opt}).optimize([model], 0)
    [part] = opt.layers
    assert part is not linear
    assert isinstance(part, nn.Linear)
    assert (type(part).__name__, part.in_features) == ("Linear", 2)
    assert part.weight is linear.weight
    assert {name: -p.flatten()[0].item() for name, p in linear.named_parameters()} == {"weight": 5, "bias": 5, share: 1}


def test_a_norm_of_the_mapping_scales_what_it_gets() -> None:
    """The gradients of the layer stay as they are, and what it writes on the layer is on the layer."""
    opt, layers = ByHand(), [Conv("a", 3.0), Conv("b", 4.0)]
    mapping = MultiOptimizer({"default": descent(), "b": opt}, gradient_clip_norm=1.0)
    for update in (1, 2):
        mapping.optimize(layers, 0)
        [part] = opt.layers
        part.visits = update
        assert (type(part).__name__, part.name, part.values) == ("Conv", "b", pytest.approx([-0.8 * update]))
        assert isinstance(part.get_params(), tuple)
        assert isinstance(part, Conv)
    assert vars(layers[1])["visits"] == 2
    assert layers[1].parts[0][1] == [torch.tensor([2.0])]
    assert layers[1].parts[0][0][1] == torch.tensor([4.0])
    mapping.gradient_clip_norm = 100.0
    mapping.optimize(layers, 0)
    assert opt.layers == [layers[1]]  # nothing is scaled: itself again


def test_a_layer_without_a_dict_comes_scaled_too() -> None:
    opt, layer = ByHand(), Slotted()
    MultiOptimizer({"default": opt}, gradient_clip_norm=1.0).optimize([layer], 0)
    assert opt.layers[0].name == "slotted"
    assert layer.w.item() == -1


def test_a_tied_weight_comes_once_with_the_sum() -> None:
    opt, a, b = ByHand(), Conv("a", 1.0, 10.0), Conv("b", 2.0)
    b.parts[0] = ((a.parts[0][0][0], torch.tensor([2.0])), b.parts[0][1])
    MultiOptimizer({"default": opt}).optimize([a, b], 0)
    assert opt.gradients == [3, 10]
    assert [(type(layer).__name__, layer.name) for layer in opt.layers] == [("Conv", "a")]
    assert a.values == [-3, -10]
    assert a.parts[0][0][1] == torch.tensor([1.0])
    ByHand().optimize([a, b], 0)  # alone: get_param_list agrees
    assert a.values == [-6, -20]


def test_modules_that_share_a_parameter() -> None:
    model = nn.ModuleDict({name: nn.Linear(1, 1) for name in "ab"})
    model["b"].weight = model["a"].weight
    for p in model.parameters():
        p.data.zero_()
        p.grad = torch.ones_like(p)
    opt = ByHand()
    MultiOptimizer({"default": opt}).optimize([model], 0)
    assert opt.gradients == [1, 1, 1]
    assert opt.layers[0] is model["a"]
    assert [p.item() for p in model.parameters()] == [-1, -1, -1]


def test_linear_is_neons_class() -> None:
    layer, opt = Linear(1, Gaussian(), name="top"), ByHand()
    layer(torch.ones(1, 1))
    layer.weight.grad = torch.full((1, 1), 3.0)
    MultiOptimizer({"default": opt}, gradient_clip_norm=1.0).optimize([layer], 0)
    assert isinstance(opt.layers[0], Linear)
    assert opt.layers[0].name == "top"


class Counted(Adam):
    """A rule of the library with something before each step, which it leaves to `super()`."""

    calls = 0

    def optimize(self, layer_list: Any, epoch: int) -> None:
        self.calls += 1
        super().optimize(layer_list, epoch)


@pytest.mark.parametrize("inside", [False, True])
def test_an_optimize_of_a_rule_may_go_on_to_super(inside: bool) -> None:
    # It came back to itself without an end.
    ours, plain = Conv("a", 1.0, -2.0), Conv("a", 1.0, -2.0)
    counted, adam = (
        Counted(learning_rate=0.1, schedule=Schedule(1, 0.5)),
        Adam(learning_rate=0.1, schedule=Schedule(1, 0.5)),
    )
    optimizer = MultiOptimizer({"default": counted}) if inside else counted
    for epoch in range(3):
        optimizer.optimize([ours], epoch)
        adam.optimize([plain], epoch)
    assert ours.values == plain.values
    assert counted.calls == counted.updates == 3
