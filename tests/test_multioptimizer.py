"""MultiOptimizer: the documented table, which key wins, tied and frozen weights, norms, hand-written optimizers.

Gradients are all ones and every optimizer is a plain descent with a rate of its own: how far a
parameter moved tells which optimizer moved it.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest
import torch
from moved_parameters import give_gradients, moved, moves, multi, rows, sgd
from torch import nn

from neon.initializers import Gaussian
from neon.layers import Affine, Linear, Sequential
from neon.optimizers import Adam, MultiOptimizer
from neon.transforms import Softmax

# -- the documented case ---------------------------------------------------------------------------


DOCUMENTED = [
    ("layer_one", "optimizer_B"),
    ("layer_two", "optimizer_C"),
    ("Affine.Linear", "optimizer_B"),
    ("Affine.Bias", "optimizer_A"),
    ("Affine.Softmax", "None (no parameters)"),
]


def documented() -> tuple[list[Any], MultiOptimizer]:
    layers: list[Any] = []
    layers.append(Linear(nout=100, init=Gaussian(), name="layer_one"))
    layers.append(Linear(nout=50, init=Gaussian(), name="layer_two"))
    layers.append(Affine(nout=5, init=Gaussian(), activation=Softmax()))
    optimizers = {letter: sgd(rate, name=f"optimizer_{letter}") for letter, rate in zip("ABC", (1, 2, 3), strict=True)}
    mapping: Any = {"default": optimizers["A"], "Linear": optimizers["B"], "layer_two": optimizers["C"]}
    return layers, MultiOptimizer(mapping)


def run_forward(layers: list[Any]) -> None:
    x = torch.ones(2, 7)
    for layer in layers:
        x = layer(x)


@pytest.mark.parametrize("forward", [False, True], ids=["before", "after"])
def test_the_documented_table(forward: bool) -> None:
    layers, opt = documented()
    if forward:
        run_forward(layers)
    table = rows(opt.table(layers))
    assert [(layer, given) for layer, _, given, *_ in table] == DOCUMENTED
    assert [int(row[3].replace(",", "")) for row in table] == ([700, 5000, 250, 5, 0] if forward else [0] * 5)


def test_the_documented_table_of_an_attached_model() -> None:
    layers, opt = documented()
    run_forward(layers)
    assert [(layer, given) for layer, _, given, *_ in rows(str(opt.attach(Sequential(layers))))] == DOCUMENTED


@pytest.mark.parametrize("how", ["attach", "optimize"])
def test_the_documented_mapping_moves_as_printed(how: str) -> None:
    layers, opt = documented()
    run_forward(layers)
    assert list(moved(Sequential(layers), opt, how).values()) == [2, 3, 2, 1]


def test_the_documented_mapping_before_the_first_forward_pass() -> None:
    layers, opt = documented()
    opt.optimize(layers, 0)  # nothing has a gradient yet
    with pytest.raises(ValueError, match="Run one forward pass, then attach"):
        opt.attach(Sequential(layers))
    run_forward(layers)
    assert list(moved(Sequential(layers), opt, "optimize").values()) == [2, 3, 2, 1]


# -- which key wins --------------------------------------------------------------------------------


class Slanted(nn.Linear):
    pass


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.Linear(2, 2)
        self.mlp = Slanted(2, 2, bias=False)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(3, 2)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm = nn.LayerNorm(2)
        self.scale = nn.Parameter(torch.ones(1))


ATTENTION = {"blocks.0.attention.weight", "blocks.0.attention.bias"}
ATTENTIONS = ATTENTION | {"blocks.1.attention.weight", "blocks.1.attention.bias"}
BIASES = {"blocks.0.attention.bias", "blocks.1.attention.bias", "norm.bias"}
MLPS = {"blocks.0.mlp.weight", "blocks.1.mlp.weight"}

# title: (rates beside {"default": 1.0}, rates expected where they are not 1.0)
PRECEDENCE: dict[str, tuple[dict[str, float | None], dict[str, float]]] = {
    "class": ({"LayerNorm": 2}, {"norm.weight": 2, "norm.bias": 2}),
    "base class": ({"Linear": 2}, dict.fromkeys(ATTENTIONS | MLPS, 2)),
    "nearest base class": (
        {"Linear": 2, "Slanted": 3},
        dict.fromkeys(ATTENTIONS, 2) | dict.fromkeys(MLPS, 3),
    ),
    "Bias": ({"Bias": 2}, dict.fromkeys(BIASES, 2)),
    "Bias beside a class": (
        {"Linear": 3, "Bias": 2},
        dict.fromkeys(ATTENTIONS | MLPS, 3) | dict.fromkeys(BIASES, 2),
    ),
    "name over Bias": ({"Bias": 2, "norm": 3}, dict.fromkeys(BIASES, 2) | {"norm.weight": 3, "norm.bias": 3}),
    "a name covers everything below": (
        {"blocks.0": 2},
        dict.fromkeys([*ATTENTION, "blocks.0.mlp.weight"], 2),
    ),
    "the nearest name": (
        {"blocks": 2, "blocks.1.mlp": 3, "blocks.1.mlp.weight": 4, "blocks.0.attention.bias": 5},
        dict.fromkeys(ATTENTIONS | MLPS, 2) | {"blocks.1.mlp.weight": 4, "blocks.0.attention.bias": 5},
    ),
    "a parameter's own name": ({"scale": 2}, {"scale": 2}),
    "pattern over class": (
        {"blocks.*.attention": 3, "Linear": 2},
        dict.fromkeys(ATTENTIONS, 3) | dict.fromkeys(MLPS, 2),
    ),
    "name over pattern": (
        {"blocks.0": 4, "blocks.*.attention.*": 3},
        dict.fromkeys(ATTENTIONS, 3) | dict.fromkeys([*ATTENTION, "blocks.0.mlp.weight"], 4),
    ),
    "the longer pattern, written last": (
        {"blocks.*": 2, "blocks.*.attention": 3},
        dict.fromkeys(MLPS, 2) | dict.fromkeys(ATTENTIONS, 3),
    ),
    "the longer pattern, written first": (
        {"blocks.*.attention": 3, "blocks.*": 2},
        dict.fromkeys(MLPS, 2) | dict.fromkeys(ATTENTIONS, 3),
    ),
    "question mark and brackets": (
        {"blocks.?.mlp": 2, "blocks.[0].attention": 3},
        dict.fromkeys(MLPS, 2) | dict.fromkeys(ATTENTION, 3),
    ),
    "regular expression": ({r"re:blocks\.(0|7)\.attention": 2}, dict.fromkeys(ATTENTION, 2)),
    "regular expressions, the longer": (
        {r"re:blocks\..*": 2, r"re:blocks\.\d\.mlp\.weight": 3},
        dict.fromkeys(ATTENTIONS, 2) | dict.fromkeys(MLPS, 3),
    ),
    "frozen by name": ({"embed": None}, {"embed.weight": 0}),
    "frozen by pattern": ({"blocks.*": None}, dict.fromkeys(ATTENTIONS | MLPS, 0)),
    "frozen but for one": (
        {"default": None, "norm.bias": 2},
        {**dict.fromkeys([*ATTENTIONS, *MLPS, "embed.weight", "norm.weight", "scale"], 0), "norm.bias": 2},
    ),
}


@pytest.mark.parametrize("how", ["attach", "optimize"])
@pytest.mark.parametrize("title", PRECEDENCE)
def test_the_strongest_key_wins(title: str, how: str) -> None:
    rates, expected = PRECEDENCE[title]
    net = Net()
    assert moved(net, multi(rates), how) == {n: expected.get(n, 1.0) for n, _ in net.named_parameters()}


@pytest.mark.parametrize("how", ["attach", "optimize"])
def test_the_class_of_the_whole_model_is_a_key(how: str) -> None:
    found = moved(Net(), multi({"Net": 2, "embed": 3}), how)
    assert (found["scale"], found["embed.weight"]) == (2, 3)


@pytest.mark.parametrize("title", [t for t in PRECEDENCE if "class" not in t])
def test_named_parameters_go_by_their_names(title: str) -> None:
    rates, expected = PRECEDENCE[title]
    net = Net()
    give_gradients(net)
    found = moves(net, multi(rates).attach(net.named_parameters()).step)
    assert found == {n: expected.get(n, 1.0) for n, _ in net.named_parameters()}


def test_neons_names_classes_and_containers() -> None:
    layers = [Affine(3, Gaussian(), name="body"), [Affine(2, Gaussian()), [Linear(2, Gaussian(), name="head")]]]
    opt = multi({"Linear": 2, "Bias": 3, "body": 4, "head": 5})
    run_forward([layers[0], layers[1][0], layers[1][1][0]])  # type: ignore[index]
    net = Sequential(layers)
    give_gradients(net)
    found = moves(net, lambda: opt.optimize(layers, 0))
    assert list(found.values()) == [4, 4, 2, 3, 5]


def test_groups_name_their_key() -> None:
    a, b = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    a.grad = b.grad = torch.ones(2)
    opt = multi({"fast": 3}).attach([{"params": [a]}, {"params": [b], "optimizer": "fast"}])
    opt.step()
    assert (a.tolist(), b.tolist()) == ([-1, -1], [-3, -3])
    with pytest.raises(ValueError, match=r"param_group\['optimizer'\] must be one of 'default', 'fast'.*'slow'"):
        opt.add_param_group({"params": [nn.Parameter(torch.zeros(1))], "optimizer": "slow"})


@pytest.mark.parametrize("how", ["attach", "optimize"])
def test_mappings_nest(how: str) -> None:
    inner = MultiOptimizer({"default": sgd(2), "Bias": sgd(3), "blocks.1": MultiOptimizer({"default": sgd(4)})})
    opt = MultiOptimizer({"default": inner, "norm": None, "embed": sgd(5)})
    expected = {
        "embed.weight": 5,
        **dict.fromkeys(("norm.weight", "norm.bias"), 0),
        **dict.fromkeys(("scale", "blocks.0.attention.weight", "blocks.0.mlp.weight"), 2),
        "blocks.0.attention.bias": 3,
        **dict.fromkeys(("blocks.1.attention.weight", "blocks.1.attention.bias", "blocks.1.mlp.weight"), 4),
    }
    assert moved(Net(), opt, how) == expected


@pytest.mark.parametrize("target", ["parameters", "groups"])
def test_a_nested_default_takes_parameters_without_names(target: str) -> None:
    p = nn.Parameter(torch.zeros(1))
    p.grad = torch.ones(1)
    opt = MultiOptimizer({"default": MultiOptimizer({"default": sgd(2)})})
    opt.attach([p] if target == "parameters" else [{"params": [p]}]).step()
    assert p.item() == -2


def test_frozen_layers_have_no_group_and_no_state() -> None:
    net = Net()
    give_gradients(net)
    before = net.embed.weight.detach().clone()
    opt = MultiOptimizer({"default": Adam(), "embed": None}).attach(net)
    opt.step()
    assert torch.equal(net.embed.weight, before)
    assert net.embed.weight not in opt.state
    assert all(p is not net.embed.weight for group in opt.param_groups for p in group["params"])


# -- keys that match nothing -----------------------------------------------------------------------


def test_attach_refuses_keys_that_match_nothing() -> None:
    net, opt = Net(), multi({"blocks.0.atention": 2, "Lineer": 3, "*.missing": 4, "norm": 5})
    with pytest.raises(ValueError, match=r"'blocks.0.atention', 'Lineer', '\*.missing'") as caught:
        opt.attach(net)
    message = str(caught.value)
    assert "Did you mean 'blocks.0.attention', 'Linear'?" in message
    assert "'norm'" not in message.split("Names here")[0]
    for there in ("embed.weight", "blocks.1.mlp", "norm.bias", "LayerNorm", "Slanted", "Bias"):
        assert there in message


@pytest.mark.parametrize("key", ["head", "Linear"])
@pytest.mark.parametrize("target", ["parameters", "named parameters", "groups"])
def test_attach_refuses_keys_that_no_parameter_of_any_target_matches(target: str, key: str) -> None:
    net = nn.LayerNorm(2)
    targets: dict[str, Any] = {
        "parameters": net.parameters(),
        "named parameters": net.named_parameters(),
        "groups": [{"params": list(net.parameters())}],
    }
    with pytest.raises(ValueError, match=key):
        multi({key: 2}).attach(targets[target])


def test_attach_refuses_keys_of_nested_mappings() -> None:
    with pytest.raises(ValueError, match="'tail'"):
        MultiOptimizer({"default": multi({"tail": 2})}).attach(Net())


def test_optimize_warns_once_of_keys_that_match_nothing() -> None:
    net, opt = Net(), multi({"Norm": 2, "heed": 3, "embed": 4})
    give_gradients(net)
    with pytest.warns(UserWarning, match="'Norm', 'heed'") as caught:
        opt.optimize([net], 0)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt.optimize([net], 0)
        opt.optimize([net.norm], 1)
    assert moved(net, opt, "optimize")["embed.weight"] == 4


# -- tied weights ----------------------------------------------------------------------------------


def tied(*names: str) -> nn.Module:
    net = nn.Module()
    weight = nn.Parameter(torch.zeros(2, 2))
    for name in names:
        layer = nn.Linear(2, 2, bias=False)
        layer.weight = weight
        net.add_module(name, layer)
    net.add_module("other", nn.LayerNorm(2))
    weight.grad = torch.ones(2, 2)
    return net


TIED: dict[str, tuple[dict[str, float | None], float]] = {
    "default on both": ({}, 1),
    "name over default": ({"b": 2}, 2),
    "name over class": ({"a": 2, "Linear": 3}, 2),
    "name over pattern": ({"a*": 3, "b": 2}, 2),
    "longer pattern": ({"*a": 3, "b.wei*": 2}, 2),
    "a third name ends a tie between patterns": ({"a*": 3, "b*": 4, "c": 2}, 2),
    "a third name comes before a draw": ({"b*": 3, "c*": 4, "a": 2}, 2),
    "frozen by the stronger": ({"a": None, "Linear": 3}, 0),
}


@pytest.mark.parametrize("how", ["attach", "optimize"])
@pytest.mark.parametrize("title", TIED)
def test_tied_weights_go_once_by_the_strongest_key(title: str, how: str) -> None:
    rates, expected = TIED[title]
    net = tied("a", "b", "c")
    assert moved(net, multi(rates), how)["a.weight"] == expected


@pytest.mark.parametrize("how", ["attach", "optimize"])
@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("a.*", "b.*")])
@pytest.mark.parametrize("other", [3, None])
def test_a_tie_between_different_optimizers_is_an_error(first: str, second: str, other: Any, how: str) -> None:
    net = tied("a", "b")
    message = re.escape(repr(first)) + ".*" + re.escape(repr(second))
    with pytest.raises(ValueError, match=message):
        moved(net, multi({first: 2, second: other}), how)
    assert not net.get_parameter("a.weight").any()


@pytest.mark.parametrize("how", ["attach", "optimize"])
def test_a_tie_for_one_optimizer_is_none(how: str) -> None:
    shared = sgd(2)
    opt = MultiOptimizer({"default": sgd(1), "a": shared, "b": shared})
    assert moved(tied("a", "b"), opt, how)["a.weight"] == 2


@pytest.mark.parametrize("how", ["attach", "optimize"])
def test_a_tie_is_decided_inside_a_nested_mapping(how: str) -> None:
    opt = MultiOptimizer({"default": multi({"b": 2})})
    assert moved(tied("a", "b"), opt, how)["a.weight"] == 2


def test_tied_weights_count_once_in_a_norm() -> None:
    opt = MultiOptimizer({"default": sgd(1, gradient_clip_norm=1.0), "other": None})  # the gradient's norm is 2
    assert moved(tied("a", "b"), opt, "attach")["a.weight"] == 0.5
    assert moved(tied("a", "b"), opt, "optimize")["a.weight"] == 0.5


# -- printing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["attach", "optimize"])
def test_the_table_counts_parameters_and_bytes_of_state(how: str) -> None:
    net = Net()
    give_gradients(net)
    opt = MultiOptimizer({"default": sgd(1), "Linear": Adam(name="adam of the blocks"), "embed": None})
    attached = opt.attach(net) if how == "attach" else None
    for update in range(2):
        found = {row[0]: row[1:] for row in rows(str(attached) if attached is not None else opt.table([net]))}
        name = "blocks.0.attention" if attached is not None else "Net.blocks.0.attention"
        assert found[name][:3] == ["Linear", "adam of the blocks", "6"]
        frozen = found[name.replace("blocks.0.attention", "embed")]
        assert frozen[:5] == ["Embedding", "None (frozen)", "6", "0", "embed"]
        # two float32 moments of six numbers, and perhaps the counts of two tensors' updates
        assert int(found[name][3]) in ((48, 56) if update else (0,))
        if attached is not None:
            attached.step()
        else:
            opt.optimize([net], 0)


def test_a_group_added_later_is_in_the_table() -> None:
    opt = multi({"embed": 2}).attach(Net())
    opt.add_param_group({"params": [("extra", nn.Parameter(torch.zeros(17)))]})
    assert any("17" in row for row in rows(str(opt)))


def test_a_mapping_prints_its_keys() -> None:
    text = repr(multi({"embed": None, "blocks.*": 0.25}, gradient_clip_norm=2.0))
    for part in ("'default'", "'embed': None", "'blocks.*'", "lr=0.25", "gradient_clip_norm=2.0"):
        assert part in text
