"""Keys that fit nothing: which are meant, also in nested mappings, in words that stay short for any model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from optimizer_contents import key_of
from torch import nn

from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer
from neon.torch import AdamW

LONG = "a_very_long_name_of_a_layer_" * 40


def multi(**keys: Optimizer | None) -> MultiOptimizer:
    return MultiOptimizer({"default": Adam(), **keys})


def net() -> nn.ModuleDict:
    return nn.ModuleDict({"x": nn.Linear(2, 2), "y": nn.Linear(2, 2, bias=False), "z": nn.LayerNorm(2)})


# -- nested mappings -------------------------------------------------------------------------------


def test_a_nested_mapping_under_two_keys_fits_where_it_can() -> None:
    """`y` has no bias, `x` has one: the key is not a mistake."""
    inner = multi(Bias=GradientDescentMomentum(0.2, 0.0))
    assert key_of(multi(x=inner, y=inner).attach(net())) == {
        "x.weight": "x/default",
        "x.bias": "x/Bias",
        "y.weight": "y/default",
        "z.weight": "default",
        "z.bias": "default",
    }


def test_two_mappings_that_are_alike_are_two() -> None:
    with pytest.raises(ValueError, match="the key 'Bias' fits nothing below 'y'"):
        multi(x=multi(Bias=None), y=multi(Bias=None)).attach(net())


NESTED: dict[str, tuple[Callable[[], MultiOptimizer], str]] = {
    "below a name": (
        lambda: multi(y=multi(Bias=None)),
        r"the key 'Bias' fits nothing below 'y'\. Names here: y, y.weight\. Classes here: Linear, ModuleDict\. ",
    ),
    "below two": (
        lambda: multi(**dict.fromkeys("yx", multi(LayerNorm=None, Biass=None))),  # type: ignore[arg-type]
        r"the keys 'LayerNorm', 'Biass' fit nothing below 'y', 'x'\. Did you mean 'Bias'\?",
    ),
    "below the default": (
        lambda: MultiOptimizer({"default": multi(x=Adam()), "x": Adam()}),
        r"the key 'x' fits nothing below 'default'\. Names here: y, z, ",
    ),
    "two levels down": (
        lambda: multi(x=multi(Linear=multi(wieght=None))),
        r"the key 'wieght' fits nothing below 'x/Linear'\. Did you mean 'x.weight'\?",
    ),
    "at both levels": (
        lambda: multi(Lineer=None, x=multi(Norm=None)),
        r"no layer fits the key 'Lineer', nor do 'x/Norm'\. Did you mean 'Linear'\?",
    ),
    "below what no layer comes to": (
        lambda: multi(Linear=multi(Bias=None), x=Adam(), y=Adam()),
        r"the key 'Bias' fits nothing below 'Linear'\. Names here: none\. Classes here: none\.",
    ),
}


@pytest.mark.parametrize("title", NESTED)
def test_keys_of_nested_mappings_are_looked_for_below_their_key(title: str) -> None:
    make, words = NESTED[title]
    with pytest.raises(ValueError, match=words):
        make().attach(net())
    with pytest.warns(UserWarning, match=words):
        make().optimize([net()], 0)


def test_nothing_is_suggested_that_is_the_key_itself() -> None:
    with pytest.raises(ValueError, match="fits nothing below") as caught:
        multi(y=multi(x=None)).attach(net())
    assert "Did you mean" not in str(caught.value)


# -- long messages ---------------------------------------------------------------------------------


def large(layers: int = 400) -> nn.Module:
    blocks = [nn.ModuleDict({f"{LONG}{i % 7}": nn.Linear(1, 1), "norm": nn.LayerNorm(1)}) for i in range(layers)]
    model = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
    for i in range(40):
        model[f"part_{i}"] = type(f"Part{LONG}{i}", (nn.Linear,), {})(1, 1)
    return model


def attached(made: Optimizer | None = None) -> Any:
    return (made or Adam()).attach(large())


def tied() -> nn.Module:
    model = nn.ModuleDict({f"{LONG}{i}": nn.Linear(1, 1) for i in range(100)})
    for layer in model.values():
        layer.weight = model[f"{LONG}0"].weight
    return model


def tied_by_data() -> nn.Module:
    model = nn.ModuleDict({f"{LONG}{i}": nn.Linear(1, 1) for i in range(2)})
    model[f"{LONG}1"].weight = nn.Parameter(model[f"{LONG}0"].weight.data)  # type: ignore[arg-type]
    return model


WRONG = {f"{LONG}{i}": Adam() for i in range(300)}
RIGHT = {f"part_{i}": Adam() for i in range(40)}
# What is refused of a model of hundreds of layers with names of a thousand characters.
CALLS: dict[str, Callable[[], Any]] = {
    "mapping": lambda: multi(**WRONG).attach(large()),
    "nested mappings": lambda: multi(blocks=multi(**WRONG), **WRONG).attach(large()),
    "named parameters": lambda: multi(**WRONG).attach(large().named_parameters()),
    "parameters": lambda: multi(**WRONG).attach(large().parameters()),
    "group": lambda: attached(multi(**RIGHT)).add_param_group({"params": [torch.ones(1)], "optimizer": LONG}),
    "a draw": lambda: multi(**{f"{LONG}{i}": Adam() for i in range(100)}).attach(tied()),
    "one memory": lambda: Adam().attach(tied_by_data()),
    "one memory, drop-in": lambda: AdamW(tied_by_data().named_parameters()),
    "set": lambda: attached().set("lr", 1.0, layers=LONG),
    "a list for layers": lambda: attached().freeze([LONG] * 100),
    "a value of no group": lambda: attached().set(LONG, 1.0),
    "freeze": lambda: attached(multi(**RIGHT)).freeze(LONG),
    "another rule's value": lambda: attached(multi(**{**RIGHT, "blocks": GradientDescentMomentum(1.0, 0.5)})).set(
        "momentum", 0.5, layers="part_*"
    ),
    "not a leaf": lambda: attached().add_layers([(LONG, torch.ones(1, requires_grad=True) * 2)]),
    "no default": lambda: MultiOptimizer(WRONG),
    "a key that is no string": lambda: MultiOptimizer({"default": Adam(), (LONG,) * 9: Adam()}),  # type: ignore[dict-item]
    "a key with a slash": lambda: multi(**{f"{LONG}/": None}),
    "a key that is no pattern": lambda: multi(**{f"re:({LONG}": None}),
    "a value that is a model": lambda: multi(**{LONG: large()}),  # type: ignore[arg-type]
    "a model for a mapping": lambda: MultiOptimizer(large()),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("title", CALLS)
def test_messages_are_short_whatever_the_model(title: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        CALLS[title]()
    assert len(str(caught.value)) < 500, str(caught.value)


def test_the_warning_of_optimize_is_short() -> None:
    with pytest.warns(UserWarning, match="no layer fits the keys") as caught:
        multi(**WRONG).optimize([large(3)], 0)
    assert len(str(caught[0].message)) < 500


def test_what_stands_further_out_is_listed_first() -> None:
    model = nn.ModuleDict({"body": nn.Sequential(*[nn.Linear(1, 1) for _ in range(200)]), "head": nn.Linear(1, 1)})
    with pytest.raises(ValueError, match=r"Names here: body, head, body.0, body.1, .*\.\.\. \(604 in all\)"):
        multi(tail=None).attach(model)
    with pytest.raises(ValueError, match=r"Did you mean 'head'\? Names here: body, head, "):
        Adam().attach(model).freeze("haed")
