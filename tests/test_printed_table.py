"""What an optimizer prints: each layer with what it goes by, repeated layers once."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import Callable
from io import BytesIO, StringIO, TextIOWrapper
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

import neon.torch
from neon.initializers import Gaussian
from neon.layers import Affine
from neon.optimizers import Adam, AdamW, GradientDescentMomentum, MultiOptimizer, Optimizer, WarmupCosine
from neon.optimizers.functions import sign
from neon.transforms import Rectlin

pytestmark = pytest.mark.usefixtures("one_thread")

COLUMNS = ["layer", "class", "optimizer", "parameters", "state bytes", "key", "lr", "decay", "set"]


def sgd(rate: float = 0.1, **options: Any) -> GradientDescentMomentum:
    return GradientDescentMomentum(rate, 0.0, **options)


class Block(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.mlp = nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Linear(width, 4))


class Net(nn.Module):
    def __init__(self, depth: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(depth))
        self.head = nn.Linear(4, 5)


def parsed(text: str) -> dict[str, dict[str, str]]:
    """The rows of a table by layer, cut where the columns begin; each row must have a label of its own."""
    head, rule, *lines = text.splitlines()
    starts = [match.start() for match in re.finditer("-+", rule)] + [1000]
    cut = [[line[a:b].strip() for a, b in pairwise(starts)] for line in (head, *lines)]
    assert cut[0] == COLUMNS
    found = {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in cut[1:]}
    assert len(found) == len(lines)
    return found


def value(row: dict[str, str], *columns: str) -> tuple[str, ...]:
    return tuple(row[column] for column in columns)


# -- what is in a row ------------------------------------------------------------------------------


def test_a_layer_has_its_key_rate_decay_and_what_is_set() -> None:
    made = MultiOptimizer({"default": AdamW(wdecay=0.05), "head": sgd(0.3), "embed": None, "norm.*": Adam()})
    model = nn.ModuleDict({"embed": nn.Embedding(3, 2), "body": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    model["norm"] = nn.Sequential(nn.LayerNorm(2), nn.GELU())
    opt: Any = made.attach(model)
    opt.set("lr", 0.5, layers="body")
    opt.set("betas", (0.5, 0.75), layers="body")
    opt.set("lr_scale", 0.25, layers="norm.0")
    opt.freeze("head")
    found = parsed(str(opt))
    shown = {label: value(row, "class", "optimizer", "key", "lr", "decay", "set") for label, row in found.items()}
    assert shown == {
        "embed": ("Embedding", "None (frozen)", "embed", "-", "-", ""),
        "body": ("Linear", "adamw", "default", "0.5", "0.05", "lr=0.5, betas=(0.5, 0.75)"),
        "head": ("Linear", "GradientDescentMomentum", "head", "0.3", "0", "frozen"),
        "norm.0": ("LayerNorm", "adam", "norm.*", "0.00025", "0", "lr_scale=0.25"),
        "norm.1": ("GELU", "None (no parameters)", "", "", "", ""),
    }


DIFFERENCES: dict[str, Callable[[nn.Module], Any]] = {
    "optimizer and key": lambda model: MultiOptimizer({"default": sgd(), "Bias": Adam()}).attach(model),
    "key": lambda model: MultiOptimizer({"default": sgd(), "Bias": sgd()}).attach(model),
    "rate": lambda model: changed(model, "lr", 0.5),
    "scale": lambda model: changed(model, "lr_scale", 0.5),
    "decay": lambda model: changed(model, "weight_decay", 0.5),
    "another value": lambda model: changed(model, "gradient_clip_value", 0.5),
    "frozen": lambda model: changed(model, "frozen", True),
    "a frozen key": lambda model: MultiOptimizer({"default": sgd(), "Bias": None}).attach(model),
}


def changed(model: nn.Module, name: str, value: Any) -> Any:
    opt: Any = sgd().attach(model)
    opt.freeze("Bias") if name == "frozen" else opt.set(name, value, layers="Bias")
    return opt


@pytest.mark.parametrize("what", DIFFERENCES)
def test_weight_and_bias_are_two_rows_where_they_differ(what: str) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2, bias=False))
    found = parsed(str(DIFFERENCES[what](model)))
    assert [(label, row["parameters"]) for label, row in found.items()] == [
        ("0.weight", "6"), ("0.bias", "2"), ("1", "4"),
    ]  # fmt: skip
    assert value(found["0.weight"], *COLUMNS[5:]) != value(found["0.bias"], *COLUMNS[5:])
    assert [*parsed(str(sgd().attach(model)))] == ["0", "1"]


def test_a_layer_list_has_the_same_columns() -> None:
    class ByHand(Optimizer):
        def __init__(self) -> None:  # without the constructor of the base class
            self.rate = 1.0

        def optimize(self, layer_list: Any, epoch: int) -> None:
            """Do nothing."""

    layers = [Affine(nout=2, init=Gaussian(), activation=Rectlin(), name="one"), nn.Sequential(nn.Linear(2, 2))]
    layers[0](torch.ones(1, 3))
    schedule = WarmupCosine(2, 9, unit="steps")
    mapping = {"default": AdamW(lr_scale=0.5, schedule=schedule), "Linear": ByHand(), "Bias": sgd(0.2, wdecay=0.1)}
    made = MultiOptimizer({"default": MultiOptimizer(mapping)})
    found = parsed(made.table(layers))
    assert found == parsed(made.table(layers, full=True))
    shown = {label: value(row, "optimizer", "parameters", "key", "lr", "decay", "set") for label, row in found.items()}
    assert shown == {
        "one.Linear": ("ByHand", "6", "default/Linear", "-", "-", ""),
        "one.Bias": ("GradientDescentMomentum", "2", "default/Bias", "0.2", "0.1", ""),
        "one.Rectlin": ("None (no parameters)", "0", "", "", "", ""),
        "Sequential.0.weight": ("ByHand", "4", "default/Linear", "-", "-", ""),
        "Sequential.0.bias": ("GradientDescentMomentum", "2", "default/Bias", "0.2", "0.1", ""),
    }


def test_the_rate_is_that_of_now() -> None:
    model = nn.Linear(2, 2)
    opt = AdamW(learning_rate=1.0, schedule=WarmupCosine(4, 9, unit="steps")).attach(model)
    tensor = AdamW(learning_rate=1.0, lr_scale=0.5).attach(model)
    tensor.param_groups[0]["lr"] = torch.tensor(0.25)
    scheduled = AdamW(learning_rate=1.0).attach(model)
    scheduler = torch.optim.lr_scheduler.StepLR(scheduled, 1, 0.125)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for _ in range(2):
        opt.step()
    scheduled.step()
    scheduler.step()
    rows = [parsed(str(o))["Linear"] for o in (opt, tensor, scheduled)]
    assert [value(row, "lr", "set") for row in rows] == [
        ("0.5", "schedule=WarmupCosine"), ("0.125", "lr_scale=0.5"), ("0.125", ""),
    ]  # fmt: skip


def test_a_rule_without_a_rate_beside_one_with() -> None:
    class Signs(Optimizer):
        @staticmethod
        def rule(w: Any, g: Any, *, size: Any = 0.1) -> Any:
            return w - size * sign(g)

    found = parsed(str(MultiOptimizer({"default": AdamW(), "0": Signs()}).attach(nn.Sequential(nn.Linear(2, 2)))))
    assert value(found["0"], "optimizer", "lr", "decay") == ("Signs", "-", "0")


def test_what_others_keep_in_the_state_is_no_hindrance() -> None:
    model = nn.Linear(2, 2)
    opt: Any = Adam().attach(model)
    before = str(opt)
    opt.state["count"] = 5
    opt.state[model.weight]["note"] = "mine"
    assert str(opt) == before


def test_parameters_in_the_place_of_others_and_groups_that_are_gone() -> None:
    """As wrappers do it: the names stay."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    opt: Any = MultiOptimizer({"default": Adam(), "1": sgd()}).attach(model)
    opt.param_groups[0]["params"][:] = [nn.Parameter(p.detach()) for p in model[0].parameters()]
    for p in opt.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    opt.step()
    found = parsed(str(opt))
    assert [(label, row["state bytes"]) for label, row in found.items()] == [("0", "56"), ("1", "0")]
    del opt.param_groups[1]
    assert [*parsed(str(opt))] == ["0"]
    opt.add_param_group({"params": [("new.weight", nn.Parameter(torch.ones(3)))]})
    assert parsed(str(opt))["new.weight"]["parameters"] == "3"


# -- repeated layers -------------------------------------------------------------------------------


def test_repeated_blocks_are_one_row_for_each_of_their_layers() -> None:
    opt = AdamW().attach(Net(32))
    found = parsed(str(opt))
    assert {label: row["parameters"] for label, row in found.items()} == {
        "embed": "20",
        "blocks.0 … blocks.31.norm": "256",
        "blocks.0 … blocks.31.mlp.0": "640",
        "blocks.0 … blocks.31.mlp.1": "0",
        "blocks.0 … blocks.31.mlp.2": "640",
        "head": "25",
    }
    full = parsed(opt.table(full=True))
    assert len(full) == 2 + 32 * 4
    assert sum(int(row["parameters"]) for row in full.values()) == 20 + 256 + 640 + 640 + 25
    assert "blocks.17.mlp.2" in full


def test_bytes_of_state_are_added_up() -> None:
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(5)))
    opt = Adam().attach(model)
    model(torch.ones(1, 2)).sum().backward()
    opt.step()
    assert [value(row, "layer", "state bytes") for row in parsed(str(opt)).values()] == [("0 … 4", "280")]


def set_block(name: str, value: Any) -> Callable[[Net], Any]:
    def make(model: Net) -> Any:
        opt: Any = AdamW().attach(model)
        opt.freeze("blocks.3") if name == "frozen" else opt.set(name, value, layers="blocks.3")
        return opt

    return make


def wider(model: Net) -> Any:
    model.blocks[3] = Block(7)
    return AdamW().attach(model)


def of_another_class(model: Net) -> Any:
    model.blocks[3] = nn.LayerNorm(4)
    return AdamW().attach(model)


def of_another_key(model: Net) -> Any:
    return MultiOptimizer({"default": AdamW(), "blocks.3": AdamW()}).attach(model)


def stepped_once(model: Net) -> Any:
    opt = AdamW().attach(model)
    for p in model.blocks[3].parameters():
        p.grad = torch.ones_like(p)
    opt.step()
    return opt


@pytest.mark.parametrize(
    "make",
    [
        set_block("lr", 0.5), set_block("lr_scale", 0.5), set_block("weight_decay", 0.5), set_block("frozen", True),
        set_block("eps", 0.5), wider, of_another_class, of_another_key, stepped_once,
    ],
    ids=["rate", "scale", "decay", "frozen", "another value", "size", "class", "key", "states"],
)  # fmt: skip
def test_a_block_that_differs_from_its_siblings_keeps_its_rows(make: Callable[[Net], Any]) -> None:
    labels = [*parsed(str(make(Net(7))))]
    assert [label for label in labels if label.startswith("blocks.3")]
    ranges = dict.fromkeys(label.rpartition(".norm")[0] for label in labels if label.endswith(".norm"))
    assert [r for r in ranges if r != "blocks.3"] == ["blocks.0 … blocks.2", "blocks.4 … blocks.6"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.0", "a.1"], ["a.0", "a.1"]),  # a range of two says no more than its rows
        (["a.0", "a.1", "a.2"], ["a.0 … a.2"]),
        (["0", "1", "2"], ["0 … 2"]),
        (["p7", "p8", "p9", "p10", "p11"], ["p7 … p11"]),
        (["x.layer1.w", "x.layer2.w", "x.layer3.w"], ["x.layer1 … layer3.w"]),
        (["a.0", "a.2", "a.3", "a.4"], ["a.0", "a.2 … a.4"]),
        (["a.3", "a.2", "a.1"], ["a.3", "a.2", "a.1"]),
        (["a.8", "a.09", "a.10"], ["a.8", "a.09", "a.10"]),
        ([f"l.{i}.e.{j}.w" for i in range(3) for j in range(4)], ["l.0 … l.2.e.0 … e.3.w"]),
        ([f"l.{i}.{n}" for i in range(3) for n in "ab"], ["l.0 … l.2.a", "l.0 … l.2.b"]),
        ([f"l.{i}.{n}" for i in range(3) for n in "ab"][:-1], ["l.0.a", "l.0.b", "l.1.a", "l.1.b", "l.2.a"]),
    ],
)
def test_ranges_of_names(names: list[str], expected: list[str]) -> None:
    opt = Adam().attach([(name, nn.Parameter(torch.ones(2))) for name in names])
    assert [*parsed(str(opt))] == expected
    assert [*parsed(opt.table(full=True))] == names


def test_layers_that_are_added_join_the_range() -> None:
    model = Net(4)
    opt = AdamW().attach(model)
    model.blocks.append(Block())
    opt.add_layers(model)
    assert "blocks.0 … blocks.4.norm" in parsed(str(opt))


def test_parameters_without_names_stand_under_their_group() -> None:
    sizes = [3, 1, 2, 5, 4]
    opt: Any = Adam(lr_scale=0.5).attach(
        [{"params": [nn.Parameter(torch.ones(n)), nn.Parameter(torch.ones(1))]} for n in sizes]
    )
    opt.param_groups[4]["lr"] = 0.5
    found = parsed(str(opt))
    assert [value(row, "layer", "parameters", "lr", "set") for row in found.values()] == [
        ("param_groups[0] … param_groups[3]", "15", "0.0005", "lr_scale=0.5"),
        ("param_groups[4]", "5", "0.25", "lr_scale=0.5"),
    ]
    full = parsed(opt.table(full=True))
    assert len(full) == 10
    assert full["param_groups[3].params[0]"]["parameters"] == "5"


# -- drop-ins --------------------------------------------------------------------------------------


def test_a_drop_in_prints_its_groups_as_torch_does() -> None:
    params = [nn.Parameter(torch.ones(2)) for _ in range(5)]
    groups: Any = [{"params": [p], "lr": 0.5 if place == 3 else 0.25} for place, p in enumerate(params)]
    ours, theirs = str(neon.torch.AdamW(copy.deepcopy(groups))), str(torch.optim.AdamW(groups))
    heads = [line for line in ours.splitlines() if line.startswith("Parameter Group")]
    assert heads == ["Parameter Groups 0 to 2", "Parameter Group 3", "Parameter Group 4"]
    assert ours.startswith("AdamW (\nParameter Group")
    assert ours.endswith(")")
    assert {line for line in theirs.splitlines() if line.startswith("    ")} <= {*ours.splitlines()}


def test_a_drop_in_with_names_prints_its_layers_too() -> None:
    model = Net(32)
    opt: Any = neon.torch.AdamW(model.named_parameters())
    opt.set("weight_decay", 0.0, layers="Bias")
    groups, _, layers = str(opt).partition("\n)\n")
    assert "param_names" not in groups
    found = parsed(layers)
    assert len(found) == 9
    assert value(found["blocks.0 … blocks.31.mlp.0.bias"], "optimizer", "decay") == ("AdamW", "0")


# -- how it is printed -----------------------------------------------------------------------------


def test_where_output_is_ascii_ranges_are_too(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = TextIOWrapper(BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    print(AdamW().attach(Net(8)))
    terminal.seek(0)
    assert "blocks.0 ... blocks.7.norm" in terminal.read()


def test_a_stream_that_names_no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", StringIO())
    assert "…" in str(AdamW().attach(Net(8)))


def made_of(model: nn.Module, kind: str) -> Any:
    if kind == "drop-in":
        return neon.torch.AdamW(model.parameters())
    if kind == "mapping":
        return MultiOptimizer({"default": AdamW(), "LayerNorm": sgd(), "Bias": sgd()}).attach(model)
    return AdamW().attach(model.named_parameters() if kind == "named" else model)


@pytest.mark.parametrize("kind", ["module", "named", "mapping", "drop-in"])
def test_a_model_of_8000_parameters_fits_on_a_screen_at_once(kind: str) -> None:
    model = Net(1333)
    assert len([*model.parameters()]) == 8001
    text = repr(made_of(model, kind))
    assert len(text.splitlines()) < 40
    assert len(text) < 4000
    assert all(line == line.rstrip() and line.isprintable() for line in text.splitlines())


def test_printing_takes_work_in_proportion_to_the_layers() -> None:
    """None of them alike."""

    def calls(count: int) -> int:
        opt = Adam().attach([(f"x{7 * i}.w", nn.Parameter(torch.ones(1))) for i in range(count)])
        events: list[str] = []
        sys.setprofile(lambda frame, event, argument: events.append(event))
        try:
            opt.table()
        finally:
            sys.setprofile(None)
        return len(events)

    assert calls(1000) < 4.5 * calls(250)
