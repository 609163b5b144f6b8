"""MultiOptimizer.map_list: which layers each optimizer was given."""

from __future__ import annotations

import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from layer_contents import BATCH, Bare, ByHand, Container, Nothing, Plain
from torch import nn

from neon.optimizers import (
    Adadelta,
    Adagrad,
    Adam,
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
    RMSProp,
)

pytestmark = pytest.mark.usefixtures("batches_of_eight")


class Conv(Plain):
    pass


def plain(kind: type[Plain] = Plain, name: str | None = None) -> Any:
    return kind((torch.zeros(2), torch.ones(2)), name=name)


def test_map_list_has_the_layers_of_each_optimizer_in_order() -> None:
    a, b, hand = Adam(), RMSProp(), ByHand()
    opt = MultiOptimizer({"default": a, "Conv": b, "last": hand, "frozen": None})
    assert opt.map_list is None
    layers = [plain(), plain(Conv), [plain(name="frozen"), Nothing()], Container([plain(Conv)]), plain(name="last")]
    for _ in range(2):
        opt.optimize([*layers, layers[1]], 0)
        assert opt.map_list == {a: [layers[0]], b: [layers[1], layers[3].layers[0]], hand: [layers[4]]}
    with pytest.warns(UserWarning, match="no layer fits the keys 'last', 'frozen'"):
        opt.optimize(layers[1:2], 0)
    assert opt.map_list == {b: [layers[1]]}
    opt.optimize([], 0)
    assert opt.map_list == {}


def test_map_list_of_nested_mappings() -> None:
    """The outer one has the inner one's layers as a whole; under several keys they are one list."""
    a, b, c = Adam(), RMSProp(), Adadelta()
    inner = MultiOptimizer({"default": a, "Conv": b})
    outer = MultiOptimizer({"default": c, "one": inner, "two": inner})
    layers = [plain(name="one"), plain(Conv, name="two"), plain()]
    outer.optimize(layers, 0)
    assert outer.map_list == {inner: layers[:2], c: [layers[2]]}
    assert inner.map_list == {a: [layers[0]], b: [layers[1]]}
    inner.optimize([layers[1]], 0)
    assert inner.map_list == {b: [layers[1]]}


def test_map_list_has_layers_without_a_gradient_and_all_that_share_a_weight() -> None:
    a = Adam()
    opt = MultiOptimizer({"default": a})
    module, first = nn.Linear(2, 1), plain()
    second = Plain((first.entries[0][0][0], torch.ones(2)))
    opt.optimize([module, first, second], 0)
    assert opt.map_list == {a: [module, first, second]}


def test_map_list_keeps_no_layer_alive_and_is_not_copied() -> None:
    a = Adam()
    opt = MultiOptimizer({"default": a})
    layers: list[Any] = [plain(), Bare((torch.zeros(2), torch.ones(2)))]
    opt.optimize(layers, 0)
    gone, bare = weakref.ref(layers[0]), layers[1]
    layers.clear()
    gc.collect()
    assert gone() is None
    assert opt.map_list == {a: [bare]}
    assert pickle.loads(pickle.dumps(opt)).map_list is None


def test_a_step_that_is_refused_leaves_map_list() -> None:
    a = Adam()
    opt, layer = MultiOptimizer({"default": a}), plain()
    opt.optimize([layer], 0)
    with pytest.raises(ValueError, match="gradient"):
        opt.optimize([Plain((torch.zeros(2), torch.ones(3)))], 0)
    assert opt.map_list == {a: [layer]}


def test_another_mapping_holds_from_the_next_step_on() -> None:
    slow, fast = GradientDescentMomentum(1.0, 0.0), GradientDescentMomentum(100.0, 0.0)
    layers = [plain(name="one"), plain(name="two")]
    opt = MultiOptimizer({"default": slow})
    opt.optimize(layers, 0)
    opt.optimizer_mapping["one"] = fast
    opt.optimize(layers, 0)
    assert opt.map_list == {fast: [layers[0]], slow: [layers[1]]}
    opt.optimizer_mapping = {"default": fast}
    opt.optimize(layers, 0)
    assert opt.map_list == {fast: layers}
    assert [layer.entries[0][0][0][0].item() * -BATCH for layer in layers] == [201, 102]
    opt.optimizer_mapping = {"default": slow, "three": fast}
    with pytest.warns(UserWarning, match="'three'"):
        opt.optimize(layers, 0)
    with pytest.raises(ValueError, match="needs the key 'default'"):
        opt.optimizer_mapping = {"one": fast}
    assert opt.keys == ("default", "three")


class OneAlpha(Optimizer):
    """A rule with an alpha that no rule of the library could have."""

    @staticmethod
    def rule(w: Any, g: Any, *, lr: float = 0.1, alpha: float = 5.0) -> Any:
        return w - lr * alpha * g


def test_values_of_the_optimizer_before_are_forgotten() -> None:
    layer, opt = plain(), MultiOptimizer({"default": OneAlpha()})
    opt.optimize([layer], 0)
    opt.optimizer_mapping = {"default": RMSProp()}
    opt.optimize([layer], 0)
    opt.optimizer_mapping = {"default": Adagrad()}
    layer.entries[0][1].clear()
    opt.optimize([layer], 0)
    opt.optimizer_mapping = {"default": OneAlpha()}
    layer.entries[0][1].clear()
    opt.optimize([layer], 0)
