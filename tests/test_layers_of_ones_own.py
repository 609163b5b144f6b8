"""Layers that are not neon's: views made anew, memory that comes and goes, torch modules with a get_params."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from neon.initializers import Gaussian
from neon.layers import Affine, Linear
from neon.optimizers import (
    Adam,
    AdamW,
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
    RMSProp,
    get_param_list,
)


class Layer:
    """`get_params` gives a new tensor object at each call, unless `view` says otherwise."""

    def __init__(self, w: Tensor, g: Tensor, view: Callable[[Tensor], Tensor] = lambda w: w.data) -> None:
        self.w, self.g, self.view = w, g, view
        self.states: list[Tensor] = []

    def get_params(self) -> Any:
        return (self.view(self.w), self.g), self.states


class Harmonic(Optimizer):
    """Without states: all that a step knows of those before is their number."""

    rule = staticmethod(lambda w, g, *, lr=1.0, step: w - lr / step * g)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "the data": lambda w: w.data,
    "detached": lambda w: w.detach(),
    "a view": lambda w: w.view(-1),
    "a part": lambda w: w[1:],
    "transposed": lambda w: w.view(-1, 2).T,
}
THREE_STEPS = -(1 + 1 / 2 + 1 / 3)


# -- the count of updates --------------------------------------------------------------------------


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("trained", [False, True])
def test_counts_go_on_with_views_made_anew(view: str, trained: bool) -> None:
    w = torch.zeros(4, requires_grad=trained)
    layer = Layer(w, VIEWS[view](torch.ones(4)), VIEWS[view])
    opt = Harmonic()
    for _ in range(3):
        opt.optimize([layer], 0)
    assert w[-1].item() == pytest.approx(THREE_STEPS)


def test_random_bits_go_on_with_views_made_anew() -> None:
    w = torch.ones(4000, dtype=torch.bfloat16)
    layers = [Layer(w, torch.full((4000,), 2.0**-13, dtype=torch.bfloat16))]
    opt = GradientDescentMomentum(1.0, 0.0, stochastic_round=True)
    for _ in range(300):
        opt.optimize(layers, 0)
    moved = 1 - w.double().mean().item()
    assert moved == pytest.approx(300 / 2**13, rel=0.1)
    assert (w == 1).double().mean() < 0.1


def test_a_view_and_its_tensor_have_one_count() -> None:
    layer, opt = Layer(torch.zeros(2), torch.ones(2), lambda w: w), Harmonic()
    for view in (VIEWS["the data"], lambda w: w, VIEWS["detached"]):
        layer.view = view
        opt.optimize([layer], 0)
    assert layer.w[0].item() == pytest.approx(THREE_STEPS)


def test_parts_of_one_buffer_count_apart() -> None:
    buffer, opt = torch.zeros(2, 3), Harmonic()
    parts = [Layer(part, torch.ones(3)) for part in buffer]
    for layers in (parts, parts, parts[:1]):
        opt.optimize(layers, 0)
    assert buffer[:, 0].tolist() == pytest.approx([THREE_STEPS, -1.5])


def test_memory_that_is_freed_and_used_again_starts_from_the_beginning() -> None:
    """Allocators give the same address at once; a tensor there is another one."""
    opt, places = Harmonic(), set()
    for _ in range(20):
        w = torch.zeros(1000)
        places.add(w.data_ptr())
        opt.optimize([Layer(w, torch.ones(1000))], 0)
        assert w[0].item() == -1
        del w
        gc.collect()
    assert len(places) < 20


@pytest.mark.parametrize("swap", ["data", "dtype"])
@pytest.mark.parametrize("kind", ["torch", "neon"])
def test_counts_stay_with_a_parameter_whose_memory_is_swapped(kind: str, swap: str) -> None:
    module = nn.Linear(1, 1, bias=False) if kind == "torch" else Linear(1, Gaussian())
    module(torch.ones(1, 1))
    weight: Any = module.weight
    weight.data.zero_()
    opt = Harmonic()
    for update in range(3):
        if update == 1 and swap == "data":
            weight.data = weight.data.clone()
        elif update == 1:
            module.double()
        weight.grad = torch.ones_like(weight)
        opt.optimize([module], 0)
    assert weight.item() == pytest.approx(THREE_STEPS)


def test_a_copied_layer_goes_on_counting() -> None:
    layer, opt = Layer(torch.zeros(1), torch.ones(1), lambda w: w), Harmonic()
    opt.optimize([layer], 0)
    twin = copy.deepcopy(layer)
    for _ in range(2):
        opt.optimize([twin], 0)
    assert twin.w.item() == pytest.approx(THREE_STEPS)


# -- memory is let go ------------------------------------------------------------------------------


def trained(kind: str) -> Any:
    if kind == "neon":
        model: Any = Affine(2, Gaussian())
        model(torch.ones(1, 2))
    else:
        model = nn.Linear(2, 2)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    return model


@pytest.mark.parametrize("kind", ["torch", "neon", "own", "view"])
@pytest.mark.parametrize("mapping", [False, True])
def test_a_description_lets_go_of_a_model_that_is_gone(kind: str, mapping: bool) -> None:
    opt: Optimizer = MultiOptimizer({"default": RMSProp()}) if mapping else RMSProp()
    if kind in ("own", "view"):
        w = torch.ones(3)
        model: Any = Layer(w, torch.ones(3), (lambda w: w) if kind == "own" else (lambda w: w.data))
    else:
        model = trained(kind)
        w = next(iter(model.parameters()))
    for _ in range(2):
        opt.optimize([model], 0)
    memory, states = StorageWeakRef(w.untyped_storage()), weakref.ref(get_param_list([model])[0][1][0])
    del model, w
    gc.collect()
    assert memory.expired()
    assert states() is None
    after = trained("torch")
    opt.optimize([after], 0)  # and goes on with another


def test_the_plan_stays_while_its_layers_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from neon.stepping import layer_lists as stepper

    made = []

    class Plan(stepper.Plan):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append(None)
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(stepper, "Plan", Plan)
    opt = RMSProp()
    model = [trained("torch"), trained("neon"), Layer(torch.ones(3), torch.ones(3), lambda w: w)]
    for _ in range(4):
        opt.optimize(model, 0)
        trained("torch")  # other layers come and go
        gc.collect()
    assert len(made) == 1


# -- torch modules that happen to have a get_params ------------------------------------------------


class Backbone(nn.Module):
    """`get_params` is its own affair, as where it makes groups for an optimizer."""

    def __init__(self, get_params: Callable[[Any], Any]) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 4)
        self.given = get_params

    def get_params(self) -> Any:
        return self.given(self)


class Demanding(Backbone):
    def get_params(self, rate: float) -> Any:  # type: ignore[override]
        raise AssertionError


FOREIGN: dict[str, Callable[[], Backbone]] = {
    "parameters": lambda: Backbone(lambda m: list(m.parameters())),
    "generator": lambda: Backbone(lambda m: m.parameters()),
    "two lists": lambda: Backbone(lambda m: ([*m.norm.parameters()], [*m.head.parameters()])),
    "names": lambda: Backbone(lambda m: list(m.named_parameters())),
    "groups": lambda: Backbone(lambda m: [{"params": m.norm.parameters()}]),
    "nothing": lambda: Backbone(lambda m: None),
    "with arguments": lambda: Demanding(lambda m: None),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.parametrize("how", ["attach", "optimize"])
def test_a_torch_module_with_a_get_params_is_a_module(kind: str, how: str) -> None:
    model = nn.ModuleDict({"backbone": FOREIGN[kind](), "norm": nn.LayerNorm(4)})
    opt = MultiOptimizer({"default": AdamW(), "LayerNorm": GradientDescentMomentum(1.0, 0.0), "backbone.head": None})
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    if how == "attach":
        opt.attach(model).step()
    else:
        opt.optimize([model], 0)
    moved = {name: (before[name] - p).unique().tolist() for name, p in model.named_parameters()}
    assert moved == {name: [0.0] if "head" in name else [1.0] for name in before}


class Own(nn.Module):
    """A torch module with neon's tuples, whose gradient is not torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 1, bias=False)
        self.states: list[Tensor] = []
        self.given: Any = None

    def get_params(self) -> Any:
        return self.given or ((self.inner.weight, torch.ones(1, 2)), self.states)


def test_a_torch_module_may_give_neons_tuples() -> None:
    layer = Own()
    layer.inner.weight.data.zero_()
    opt = MultiOptimizer({"default": GradientDescentMomentum(1.0, 0.5), "Own": GradientDescentMomentum(2.0, 0.5)})
    for _ in range(2):
        opt.optimize([layer], 0)
    assert layer.inner.weight.tolist() == [[-5.0, -5.0]]
    assert len(layer.states) == 1
    opt.attach(layer)  # torch's gradients are those of its parts
    layer.given = ((layer.inner.weight, torch.ones(1, 2)), ())
    with pytest.raises(TypeError, match=r"get_params\(\) of Own must return"):
        opt.optimize([layer], 0)


def test_what_get_params_raises_is_not_hidden() -> None:
    def broken(module: nn.Module) -> Any:
        raise TypeError("one of its own")

    with pytest.raises(TypeError, match="one of its own"):
        Adam().optimize([Backbone(broken)], 0)


# -- classes ---------------------------------------------------------------------------------------


class Slanted(Linear):
    pass


class Steep(Slanted):
    pass


class Sloping(Layer):
    pass


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"Linear": 2.0}, [2, 2, 2, 1, 1]),
        ({"Linear": 2.0, "Slanted": 3.0}, [2, 3, 3, 1, 1]),
        ({"Steep": 4.0, "Linear": 2.0, "Slanted": 3.0}, [2, 3, 4, 1, 1]),
        ({"Layer": 5.0, "Sloping": 6.0}, [5, 5, 5, 5, 6]),
    ],
)
def test_a_class_key_fits_base_classes_the_nearest_first(keys: dict[str, float], expected: list[float]) -> None:
    layers: list[Any] = [kind(1, Gaussian()) for kind in (Linear, Slanted, Steep)]
    for layer in layers:
        layer(torch.ones(1, 1))
        layer.weight.data.zero_()
        layer.weight.grad = torch.ones(1, 1)
    layers += [Layer(torch.zeros(1), torch.ones(1)), Sloping(torch.zeros(1), torch.ones(1))]
    rates = {"default": 1.0, **keys}
    MultiOptimizer({key: GradientDescentMomentum(rate, 0.0) for key, rate in rates.items()}).optimize(layers, 0)
    assert [-getattr(layer, "w", getattr(layer, "weight", None)).item() for layer in layers] == expected  # type: ignore[union-attr]


# -- what is wrong with a layer --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conv1", "c" * 1000])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda a, t: ((a, a), []), r"\(\(numpy.ndarray, numpy.ndarray\), \[\]\).*torch.from_numpy"),
        (lambda a, t: (t, t, []), r"Received: \(torch.Tensor, torch.Tensor, \[\]\)"),
        (lambda a, t: [((t, a), [])] * 100, r"Received: \[\(\(torch.Tensor, numpy.ndarray\), \[\]\), .*\.\.\."),
        (lambda a, t: {"w": t}, "Received: dict"),
        (lambda a, t: "w" * 10000, "Received: 'www"),
    ],
)
def test_what_get_params_gives_is_named_by_type(given: Any, words: str, name: str) -> None:
    class Conv:
        def get_params(self) -> Any:
            return given(np.ones((30, 30)), torch.ones(30, 30))

    Conv.name = name  # type: ignore[attr-defined]
    for call in (lambda: Adam().optimize([Conv()], 0), lambda: get_param_list([Conv()])):
        with pytest.raises(TypeError, match=words) as caught:
            call()
        assert "get_params() of Conv 'c" in str(caught.value)
        assert len(str(caught.value)) < 500
        assert "1." not in str(caught.value)


def test_states_that_are_no_tensors_are_named_by_type() -> None:
    layer = Layer(torch.ones(900), torch.ones(900))
    layer.states = [np.ones(900)]  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"must be a tensor\. Received: numpy\.ndarray") as caught:
        RMSProp().optimize([layer], 0)
    assert len(str(caught.value)) < 500
