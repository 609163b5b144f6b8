"""What the parameter list and a refused step promise of layers that are put together in unusual ways."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from one_number import Plain
from torch import Tensor, nn

from neon.initializers import Gaussian
from neon.layers import Linear
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, get_param_list


def descent(rate: float = 1.0, momentum: float = 0.0, **options: Any) -> GradientDescentMomentum:
    return GradientDescentMomentum(rate, momentum, **options)


# -- a layer is anything with get_params(), also where it has layers ------------------------------


class Block(Plain):
    """A container with a parameter of its own; `gives` says what its `get_params()` has beside that."""

    def __init__(self, *layers: Any, gives: bool = False) -> None:
        super().__init__(10.0, "block")
        self.layers, self.gives = [*layers], gives

    def get_params(self) -> Any:
        own = super().get_params()
        return [own, *(layer.get_params() for layer in self.layers)] if self.gives else own


@pytest.mark.parametrize("gives", [False, True], ids=["its own alone", "those of its layers too"])
def test_a_container_with_a_parameter_of_its_own_is_updated_whole(gives: bool) -> None:
    """Each parameter once, the container's too, and the sublayers under their own names."""
    inner = [Plain(1.0, "a"), Plain(2.0, "b")]
    block = Block(*inner, gives=gives)
    assert sorted(grad.item() for (_, grad), _ in get_param_list([block])) == [1, 2, 10]
    MultiOptimizer({"default": descent(), "b": descent(3.0), "block": descent(0.5)}).optimize([block], 0)
    assert [layer.w.item() for layer in (*inner, block)] == [-0.5, -6, -5]


class Sized(Plain):
    layers = (100, 10)


class Empty(Plain):
    layers: tuple[int, ...] = ()


@pytest.mark.parametrize("kind", [Sized, Empty])
def test_layers_of_a_layer_may_be_their_sizes(kind: type[Plain]) -> None:
    """`layers` is an attribute like another where it does not hold layers."""
    layer = kind()
    descent().optimize([layer], 0)
    assert layer.w.item() == -1
    assert len(get_param_list([layer])) == 1


Entry = namedtuple("Entry", "pair states")


class Named(Plain):
    def get_params(self) -> Any:
        return Entry((self.w, self.g), self.states)


class Listed(list[Any]):
    pass


class Subclassed(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.states = Listed()

    def get_params(self) -> Any:
        return Listed([super().get_params()])


@pytest.mark.parametrize("kind", [Named, Subclassed])
def test_tuples_and_lists_may_be_of_classes_derived_from_them(kind: type[Plain]) -> None:
    layer, opt = kind(), descent(1.0, 0.5)
    for _ in range(2):
        opt.optimize([layer], 0)
    assert layer.w.item() == -2.5
    assert [state.item() for state in layer.states] == [-1.5]


# -- what is no layer ------------------------------------------------------------------------------


class NoMethod:
    get_params = 3


class Short(Plain):
    def get_params(self) -> Any:
        return ((self.w, self.g),)


class Several(Plain):
    def get_params(self) -> Any:
        return (super().get_params(), super().get_params())


class Generates(Plain):
    def get_params(self) -> Any:
        yield super().get_params()


NO_LAYERS: dict[str, tuple[Callable[[], Any], str]] = {
    "a generator": (
        lambda: (Plain() for _ in range(2)),
        r"Received: generator\. Of several, give a list: list\(layers\)",
    ),
    "a dict": (lambda: {"a": Plain()}, r"Received: dict\. Of several, give a list: list\(layers\.values\(\)\)\.$"),
    "a view of a dict": (lambda: {"a": Plain()}.values(), r"Received: dict_values\. Of several, give a list"),
    "an array": (lambda: np.array([Plain()], dtype=object), r"Received: ndarray\. Of several"),
    "a string": (lambda: "layers", r"Received: str\.$"),
    "a tensor": (lambda: torch.ones(2), r"Received: Tensor\.$"),
    "a class of neon's": (lambda: Linear, r"Received: the class Linear\.$"),
    "a class of one's own": (lambda: Plain, r"Received: the class Plain\.$"),
    "a class with layers": (lambda: Sized, r"Received: the class Sized\.$"),
    "an optimizer": (Adam, r"Received: Adam\.$"),
    "get_params is a number": (NoMethod, r"^get_params of NoMethod must be a method\. Received: 3\.$"),
    "no states": (Short, r"^get_params\(\) of Short must return.*Received: \(\(torch\.Tensor, torch\.Tensor\)\)"),
    "a tuple of entries": (Several, r"^get_params\(\) of Several must return"),
    "it generates": (Generates, r"^get_params\(\) of Generates must return.*Received: generator\."),
}


@pytest.mark.parametrize("kind", NO_LAYERS)
def test_what_is_no_layer_is_named_and_nothing_is_updated(kind: str) -> None:
    make, words = NO_LAYERS[kind]
    first = Plain()
    for opt in (descent(1.0, 0.5), MultiOptimizer({"default": Adam()})):
        with pytest.raises(TypeError, match=words) as caught:
            opt.optimize([first, make()], 0)
        assert len(str(caught.value)) < 500
    with pytest.raises(TypeError, match=words):
        get_param_list([first, make()])
    assert (first.w.item(), first.states) == (0, [])


# -- lists of states -------------------------------------------------------------------------------


class Careless(Plain):
    """The list of states stands in the class, and so all objects share it."""

    states: list[Any] = []  # noqa: RUF012 - the mistake that is meant

    def __init__(self, gradient: float, name: str) -> None:
        super().__init__(gradient, name)
        del self.states


@pytest.mark.parametrize("filled", [False, True])
def test_one_list_of_states_for_two_parameters_is_refused(filled: bool) -> None:
    """The second would go by the velocity of the first, or by none."""
    layers, opt = [Careless(1.0, "a"), Careless(2.0, "b")], descent(1.0, 0.5)
    Careless.states = [torch.ones(1, dtype=torch.float64)] if filled else []
    before = list(Careless.states)
    for optimizer in (opt, MultiOptimizer({"default": opt})):
        with pytest.raises(ValueError, match=r"Two parameters, of 'a' and of 'b', have one list of states\. Give each"):
            optimizer.optimize(layers, 0)
    assert [layer.w.item() for layer in layers] == [0, 0]
    assert Careless.states == before


def test_a_rule_without_states_asks_for_no_lists() -> None:
    layers = [Careless(1.0, "a"), Careless(2.0, "b")]
    Careless.states = []
    descent().optimize(layers, 0)
    assert [layer.w.item() for layer in layers] == [-1, -2]


@pytest.mark.parametrize("shares", [1, 2])
def test_one_layer_that_stands_in_a_list_several_times_is_no_such_case(shares: int) -> None:
    layer, opt = Plain(), descent(1.0, 0.5)
    for _ in range(2):
        opt.optimize([layer] * shares, 0)
    assert (layer.w.item(), len(layer.states)) == (-2.5, 1)


# -- frozen layers ---------------------------------------------------------------------------------


def test_a_frozen_layer_is_not_looked_at() -> None:
    """Nothing of it is written, counted in a norm, or refused."""
    frozen, other = Plain(4.0, "frozen"), Plain(3.0)
    strange = Plain(1.0, "strange")
    strange.w = torch.ones(1, dtype=torch.complex64)  # type: ignore[assignment]
    frozen.states = [torch.ones(1)]
    mapping = {"default": descent(), "frozen": None, "strange": None}
    MultiOptimizer(mapping, gradient_clip_norm=1.5).optimize([frozen, strange, other], 0)
    assert (frozen.w.item(), other.w.item()) == (0, -1.5)
    assert frozen.states == [torch.ones(1)]


def test_a_module_of_torchs_with_an_attribute_get_params_is_a_module() -> None:
    class Attribute(nn.Linear):
        get_params: Tensor | None = None

    layer = Attribute(1, 1, bias=False)
    layer.weight.data.zero_()
    layer.weight.grad = torch.ones(1, 1)
    descent().optimize([layer], 0)
    assert layer.weight.item() == -1
    assert isinstance(Linear(1, Gaussian()).get_params(), tuple)
