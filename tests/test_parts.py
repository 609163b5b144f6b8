"""`parts` says by key what of a parameter is a matrix, for every way to attach a rule of matrices."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import pytest
import torch
from matrix_rules import Whole, fill_gradients, matrices, taken_for
from torch import nn

import neon.torch
from neon.initializers import Gaussian
from neon.layers import Affine
from neon.layers import Linear as NeonLinear
from neon.optimizers import Adam, AdamW, Cautious, Matrices, MultiOptimizer, Muon


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 24, bias=False)
        self.gate_up = nn.Linear(4, 16, bias=False)
        self.down = nn.Linear(8, 4, bias=False)


def model() -> nn.Module:
    net = nn.Module()
    net.blocks = nn.Sequential(Block(), Block())
    return net


def names(layer: str) -> list[str]:
    return [f"blocks.{i}.{layer}.weight" for i in range(2)]


def expected(**parts: Matrices) -> dict[str, Matrices]:
    found = {name: Matrices() for layer in ("qkv", "gate_up", "down") for name in names(layer)}
    return found | {name: own for layer, own in parts.items() for name in names(layer)}


PARTS: dict[str, tuple[Any, dict[str, Matrices]]] = {
    "nothing": (None, expected()),
    "patterns": ({"*.qkv": 3, "*.gate_up": 2}, expected(qkv=Matrices(3), gate_up=Matrices(2))),
    "heads": ({"*.qkv": 12}, expected(qkv=Matrices(12))),
    "lengths": ({"*.qkv": (16, 4, 4)}, expected(qkv=Matrices((16, 4, 4)))),
    "a list": ({"*.qkv": [16, 4, 4]}, expected(qkv=Matrices((16, 4, 4)))),
    "said in full": ({"*.down": Matrices(4, dim=1)}, expected(down=Matrices(4, dim=1))),
    "a name": (
        {"blocks.0.qkv": 3, "*.qkv": 6},
        expected(qkv=Matrices(6)) | {"blocks.0.qkv.weight": Matrices(3)},
    ),
    "a regular expression": ({"re:blocks.*up": 2}, expected(gate_up=Matrices(2))),
    "all": (2, {name: Matrices(2) for name in expected()}),
    "a default": ({"default": 2, "*.qkv": 3}, {n: Matrices(3 if "qkv" in n else 2) for n in expected()}),
}
TARGETS = {
    "module": lambda net: net,
    "named parameters": lambda net: net.named_parameters(),
    "groups with names": lambda net: [{"params": [named]} for named in net.named_parameters()],
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("case", PARTS.values(), ids=PARTS)
def test_parts_go_by_the_keys_of_mappings(case: tuple[Any, dict[str, Matrices]], target: Any) -> None:
    parts, found = case
    assert matrices(Whole(parts=parts).attach(target(model()))) == found


@pytest.mark.parametrize("case", PARTS.values(), ids=PARTS)
def test_a_drop_in_has_them_too(case: tuple[Any, dict[str, Matrices]]) -> None:
    parts, found = case
    assert matrices(neon.torch.Muon(model().named_parameters(), parts=parts)) == found


def test_a_class_is_a_key_where_it_is_known() -> None:
    assert matrices(Whole(parts={"Linear": 2}).attach(model())) == {name: Matrices(2) for name in expected()}


def test_within_a_mapping() -> None:
    optimizer = MultiOptimizer({"default": Whole(parts={"*.qkv": 3}), "*.down": AdamW(), "*.gate_up": Whole(parts=2)})
    found = expected(qkv=Matrices(3), gate_up=Matrices(2))
    for target in TARGETS.values():
        if target is not TARGETS["groups with names"]:
            taken = taken_for(optimizer.attach(target(model())))
            assert taken == {name: None if "down" in name else own for name, own in found.items()}


def test_around_it() -> None:
    around = Cautious(Whole(parts={"*.qkv": 3}))
    assert matrices(around.attach(model())) == expected(qkv=Matrices(3))
    assert around.scale_of((8, 2), around.group()) == 2
    assert "parts={'*.qkv': 3}" in repr(around)


def test_other_rules_have_none() -> None:
    assert {*taken_for(Adam().attach(model())).values()} == {None}
    with pytest.raises(TypeError, match="Adam has no argument 'parts'"):
        Adam(parts=3)  # type: ignore[call-arg]
    assert "parts" not in inspect.signature(Adam).parameters
    assert inspect.signature(Whole).parameters["parts"].default is None


def test_in_the_backward_pass() -> None:
    net = model()
    optimizer = Whole(parts={"*.qkv": 3}).attach(net, in_backward=True)
    sum(param.sum() for param in net.parameters()).backward()  # type: ignore[union-attr]
    assert len(optimizer._stepper._own) == 6  # type: ignore[attr-defined]
    items = [own.plan.items[0] for own in optimizer._stepper._own.values()]  # type: ignore[attr-defined]
    assert {item.name: item.matrices for item in items} == expected(qkv=Matrices(3))


def test_parameters_without_names() -> None:
    params = [*model().parameters()]
    assert matrices(Whole(parts=2).attach(params)) == {f"params[{i}] of 'default'": Matrices(2) for i in range(6)}
    with pytest.raises(
        ValueError, match=r"Whole has parts by name, such as '\*.qkv'.* without names\. Attach a module"
    ):
        Whole(parts={"*.qkv": 3}).attach(params)
    with pytest.raises(ValueError, match=r"Muon has parts by name"):
        neon.torch.Muon(params, parts={"*.qkv": 3})


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_keys_that_fit_nothing_are_refused(target: Any) -> None:
    with pytest.raises(ValueError, match=r"no parameter of its own fits the key 'qvk' of parts.*Names here: "):
        Whole(parts={"qvk": 3}).attach(target(model()))
    with pytest.raises(ValueError, match=re.escape("Did you mean '*.qkv'?")):
        Whole(parts={"qkv": 3}).attach(target(model()))
    with pytest.raises(ValueError, match=r"Did you mean 'blocks\.0\.qkv'"):
        Whole(parts={"blocks.0.qvk": 3}).attach(target(model()))


def test_keys_of_what_another_rule_has_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Whole: no parameter of its own fits the key '\*.down' of parts"):
        MultiOptimizer({"default": Whole(parts={"*.down": 2}), "*.down": AdamW()}).attach(model())


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({"*.qkv": "3"}, TypeError, r"parts\['\*.qkv'\] must be a number of equal parts, their lengths, a Matrices"),
        ({"*.qkv": 0}, ValueError, r"parts\['\*.qkv'\]: parts must be a number of equal parts"),
        ({3: 3}, TypeError, "parts's keys must be strings"),
        ({"re:(": 3}, ValueError, "is not a regular expression"),
        ({"a/b": 3}, ValueError, "holds a slash"),
        (1.5, TypeError, "parts must be a number of equal parts, their lengths"),
    ],
)
def test_what_says_nothing_of_matrices_is_refused(parts: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Whole(parts=parts)
    optimizer = Whole()
    with pytest.raises(error, match=message):
        optimizer.parts = parts


def test_parts_that_do_not_divide_are_refused_when_attached() -> None:
    for target in TARGETS.values():
        with pytest.raises(ValueError, match=r"'blocks.0.qkv.weight' has shape \(24, 4\): .* not divided by 5"):
            Whole(parts={"*.qkv": 5}).attach(target(model()))
    with pytest.raises(ValueError, match=r"add up to 20\. Give lengths that add up to 24"):
        Whole(parts={"*.qkv": (16, 4)}).attach(model())


# -- what they do ------------------------------------------------------------------------------------


WHOLE_SHAPES = {
    "query, key and value": (Matrices(3), (96, 40)),
    "shared keys and values": (Matrices((64, 16, 16)), (96, 40)),
    "heads": (Matrices(6), (96, 40)),
    "along columns": (Matrices(3, dim=1), (40, 96)),
    "inputs first": (Matrices(3, dim=1, inputs_first=True), (40, 96)),
    "experts": (Matrices(stacked=True), (4, 24, 40)),
    "gate and up of experts": (Matrices(2, stacked=True), (4, 24, 40)),
    "experts with inputs first": (Matrices((16, 8), 1, stacked=True, inputs_first=True), (4, 40, 24)),
    "a convolution in groups": (Matrices(2), (24, 8, 3, 3)),
}


@pytest.mark.parametrize("layout", [torch.clone, lambda x: x.transpose(0, 1).contiguous().transpose(0, 1)])
@pytest.mark.parametrize("case", WHOLE_SHAPES.values(), ids=WHOLE_SHAPES)
def test_parts_step_as_separate_weights_would(case: tuple[Matrices, tuple[int, ...]], layout: Any) -> None:
    """To the bit, whatever the layout: the weight as one parameter, and each of its matrices as a parameter."""
    declared, shape = case
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(layout(torch.randn(shape, generator=generator)))
    apart = [nn.Parameter(matrix.clone()) for stack in declared.gather(weight.detach()) for matrix in stack]
    together = Muon(parts=declared, wdecay=0.1).attach([weight])
    separate = Muon(wdecay=0.1).attach(apart)
    for _ in range(3):
        weight.grad = given = layout(torch.randn(shape, generator=generator))
        for param, grad in zip(apart, (m for s in declared.gather(given) for m in s), strict=True):
            param.grad = grad.clone()
        together.step()
        separate.step()
    found = [matrix for stack in declared.gather(weight.detach()) for matrix in stack]
    assert len(found) == len(apart)
    for one, other in zip(found, apart, strict=True):
        assert torch.equal(one, other)


# -- what is changed later ---------------------------------------------------------------------------


def test_a_group_that_is_added_has_them_by_its_names() -> None:
    net = model()
    optimizer = Whole(parts={"*.qkv": 3}).attach(net)
    optimizer.add_param_group({"params": [("more.qkv", nn.Parameter(torch.ones(6, 2)))]})
    assert matrices(optimizer) == expected(qkv=Matrices(3)) | {"more.qkv": Matrices(3)}
    before = [*optimizer.param_groups]
    for param, message in ((torch.ones(5, 2), "not divided by 3"), (torch.ones(5), "these parameters are none: b.qkv")):
        with pytest.raises(ValueError, match=message):
            optimizer.add_param_group({"params": [("b.qkv", nn.Parameter(param))]})
        assert [*optimizer.param_groups] == before
    matrices(optimizer)


def test_layers_that_are_added_have_them() -> None:
    net = model()
    optimizer = Whole(parts={"*.qkv": 3}).attach(net)
    net.blocks.append(Block())  # type: ignore[operator, union-attr]
    optimizer.add_layers(net)
    assert matrices(optimizer)["blocks.2.qkv.weight"] == Matrices(3)
    net.blocks.append(nn.LayerNorm(3))  # type: ignore[operator, union-attr]
    with pytest.raises(ValueError, match=r"these parameters are none: blocks\.3\.weight, blocks\.3\.bias"):
        optimizer.add_layers(net)
    assert len(matrices(optimizer)) == 9


def test_a_checkpoint_leaves_them_alone() -> None:
    first, second = Whole(parts={"*.qkv": 3}).attach(model()), Whole(parts={"*.qkv": 6}).attach(model())
    matrices(first)
    saved = first.state_dict()
    assert "Matrices" not in repr(saved)
    assert "qkv" not in repr(
        {key: value for group in saved["param_groups"] for key, value in group.items() if key != "param_names"}
    )
    second.load_state_dict(saved)
    assert matrices(second) == expected(qkv=Matrices(6))
    assert matrices(first) == expected(qkv=Matrices(3))


@pytest.mark.parametrize("of", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_copies_have_them(of: Any) -> None:
    described = of(Whole(parts={"Linear": 2, "*.qkv": Matrices((16, 4, 4))}))
    attached = of(described.attach(model()))  # classes are known in the copy too
    assert matrices(attached) == {n: Matrices((16, 4, 4)) if "qkv" in n else Matrices(2) for n in expected()}


def test_they_are_printed() -> None:
    given = "parts={'*.qkv': 3, '*.up': Matrices(dim=1)}"
    assert repr(Whole(parts={"*.qkv": 3, "*.up": Matrices(dim=1)})) == f"Whole(lr=0.02, momentum=0.95, {given})"
    lines = Whole(parts={"*.qkv": (16, 4, 4)}).attach(model()).table().splitlines()
    assert [line.split("set")[-1].strip() for line in lines[:1]] == ["matrices"]
    assert lines[2].endswith("16x4, scale 2; 2 of 4x4, scale 1")
    assert lines[4].endswith("4x8, scale 1")
    assert "matrices" not in Adam().attach(model()).table()


# -- layer lists -------------------------------------------------------------------------------------


def test_in_layer_lists() -> None:
    net = model()
    fill_gradients(net)
    optimizer = Whole(parts={"*.qkv": 3})
    optimizer.optimize(net, 0)
    (plan,) = optimizer._layer_stepper()._plans._kept
    assert [item.matrices for item in plan.plan.items] == [Matrices(3), Matrices(), Matrices()] * 2


def test_in_lists_of_neons_layers() -> None:
    layers = [NeonLinear(4, Gaussian(), name="first"), Affine(4, Gaussian(), bias=Gaussian(), name="second")]
    x = torch.ones(1, 4)
    for layer in layers:
        x = layer(x)
    x.sum().backward()
    with pytest.raises(ValueError, match="Whole updates matrices, and these parameters are none: "):
        Whole().optimize(layers, 0)
    optimizer = MultiOptimizer({"default": Whole(parts={"first": 2}), "Bias": AdamW()})
    optimizer.optimize(layers, 0)
    (plan,) = optimizer._layer_stepper()._plans._kept
    assert [item.matrices for item in plan.plan.items] == [Matrices(2), Matrices(), None]
    assert "2 of 2x4" in optimizer.table(layers)
