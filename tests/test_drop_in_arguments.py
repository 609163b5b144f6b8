"""Arguments of the drop-in classes are torch's, and what is refused is refused as documented."""

from __future__ import annotations

import copy
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from constructors import DROP_INS, OF_MATRICES
from drop_in_training import SHARED, Case, give, parameters, train
from torch import nn

import neon.torch
from neon.torch import SGD, Adam, AdamW, AttachedOptimizer, Lion, RMSprop
from neon.torch.described import GraphOptions, Options

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", DROP_INS)
def test_it_is_rebuilt_from_its_defaults(name: str) -> None:
    """As wrappers do that shard an optimizer or hand it to other processes."""
    given = {"lr": 0.25, "weight_decay": 0.125, "maximize": True, "state_dtype": "bfloat16", "gradient_clip_value": 2.0}
    params = [p for p in parameters() if p.dim() > 1 or name not in OF_MATRICES]
    optimizer = getattr(neon.torch, name)(params, **given)
    again = type(optimizer)(params, **optimizer.defaults)
    assert again.defaults == optimizer.defaults
    values = [{k: v for k, v in o.param_groups[0].items() if k != "params"} for o in (optimizer, again)]
    assert values[0] == values[1]


def test_decay_of_adamw_is_decoupled() -> None:
    with pytest.raises(ValueError, match=r"decoupled_weight_decay=True\. Received: False\. Use Adam\."):
        AdamW(parameters(), decoupled_weight_decay=False)


# -- arguments -------------------------------------------------------------------------------------


def test_all_of_them_are_exported() -> None:
    assert {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta", "Lion"} <= {*DROP_INS}
    assert issubclass(AdamW, Adam)  # as in torch
    assert issubclass(Lion, AttachedOptimizer)


@pytest.mark.parametrize("name", [*SHARED, "Muon"])
def test_arguments_are_torchs(name: str) -> None:
    ours = dict(inspect.signature(getattr(neon.torch, name)).parameters)
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    more = [*ours][len(theirs) :]
    assert [*ours] == [*theirs, *more]
    assert all(ours[option].kind is inspect.Parameter.KEYWORD_ONLY for option in more)
    assert {*GraphOptions.__annotations__} <= {*ours} | ({"capturable"} - {*theirs})
    for key, parameter in theirs.items():
        assert (ours[key].kind, ours[key].default) == (parameter.kind, parameter.default), key


def test_options_are_the_attached_optimizers_and_the_rules() -> None:
    attached = {
        name
        for name, parameter in inspect.signature(AttachedOptimizer.__init__).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    rules = {"gradient_clip_value", "gradient_clip_norm", "param_clip_value", "stochastic_round", "state_dtype"}
    rules |= {"decay_form", "master", "weight_average", "lr_scale", "seed"}
    assert {*Options.__annotations__} == (attached | rules) - {"capturable"}  # torch's classes have that of their own
    with pytest.raises(TypeError, match=r"^Lion has no argument 'momentum'\. Its arguments: params, lr, betas, .*seed"):
        Lion(parameters(), momentum=0.9)  # type: ignore[call-arg]


def outcome(library: Any, name: str, **arguments: Any) -> type[Exception] | None:
    try:
        getattr(library, name)(parameters(), **arguments)
    except Exception as error:
        return type(error)
    return None


def numbers(name: str) -> list[str]:
    signature = inspect.signature(getattr(torch.optim, name))
    return [key for key, p in signature.parameters.items() if type(p.default) in (int, float)]


GIVEN: list[Any] = [-1.0, -1e-12, 0, 0.0, 1e-12, 0.5, 1, 1.0, 1.5, 100, torch.tensor(0.5), torch.tensor([-0.5])]


@pytest.mark.parametrize(("name", "argument"), [(name, argument) for name in SHARED for argument in numbers(name)])
def test_numbers_are_allowed_as_torch_allows_them(name: str, argument: str) -> None:
    unchecked = argument == "dampening" or (name == "ASGD" and argument in ("lambd", "alpha", "t0"))
    given = [*GIVEN, *(() if unchecked else ("0.1", None, (0.9,)))]  # of these torch checks nothing
    found = {str(value): outcome(neon.torch, name, **{argument: value}) for value in given}
    assert found == {str(value): outcome(torch.optim, name, **{argument: value}) for value in given}
    if argument == "lr":
        assert found["-1.0"] is ValueError
        assert found["0.1"] is TypeError


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        *(("Adam", {"betas": betas}) for betas in ((0.0, 0.0), [0.5, 0.9], (0.9, 1.0), (-0.1, 0.9), (0, 0.9), 0.9)),
        ("AdamW", {"betas": (torch.tensor([[0.9]]), torch.tensor([0.99]))}),
        *(("SGD", {"nesterov": True, **given}) for given in ({}, {"momentum": 1.5}, {"momentum": 1, "dampening": 1})),
        *(
            (name, {"fused": True, flag: True})
            for name in ("SGD", "Adam", "AdamW", "Adagrad")
            for flag in ("foreach", "differentiable")
        ),
        *((name, {"foreach": False, "fused": None} if name != "RMSprop" else {"foreach": True}) for name in SHARED[:5]),
    ],
)
def test_arguments_go_together_as_in_torch(name: str, arguments: Case) -> None:
    assert outcome(neon.torch, name, **arguments) == outcome(torch.optim, name, **arguments)


@pytest.mark.parametrize("argument", ["lr", "momentum"])
def test_arguments_are_checked_where_every_group_has_its_own_value(argument: str) -> None:
    for library in (neon.torch, torch.optim):
        with pytest.raises(ValueError, match=r"-0\.5"):
            library.RMSprop([{"params": parameters(), argument: 0.5}], **{argument: -0.5})


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_betas_in_tensors(name: str) -> None:
    one, other = parameters(), parameters()
    betas = (torch.tensor([0.5]), torch.tensor([[0.75]]))
    opt = getattr(neon.torch, name)(one, betas=betas)
    assert [beta.shape for beta in opt.param_groups[0]["betas"]] == [(), ()]  # torch's too
    train(one, opt)
    train(other, getattr(neon.torch, name)(other, betas=(0.5, 0.75)))
    assert all(map(torch.equal, one, other))


# -- what is refused -------------------------------------------------------------------------------


def sparse() -> None:
    layer = nn.Embedding(3, 2, sparse=True)
    layer(torch.tensor([1])).sum().backward()
    SGD(layer.parameters()).step()


def twice() -> None:
    [p, *_] = parameters()
    with pytest.warns(UserWarning, match="duplicate parameters"):
        opt = SGD([p, p])
    give([p], 0)
    opt.step()


def complex_() -> None:
    p = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    p.grad = torch.ones_like(p)
    Adam([p]).step()


def in_a_group(**values: Any) -> None:
    [p, *_] = parameters()
    SGD([{"params": [p], **values}])


# The beginning of a line in docs/pytorch.md, "What is refused": what torch.optim takes and these classes do not.
REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "`capturable=True`": (lambda: Adam(parameters(), capturable=True), ValueError, "^capturable=True asks for"),
    "`differentiable=True`": (
        lambda: RMSprop(parameters(), differentiable=True), ValueError, "^differentiable=True asks for",
    ),
    "NaN and infinities": (lambda: SGD(parameters(), torch.nan), ValueError, "^lr must be a finite number.*lr=nan"),
    "Flags that are not `True` or `False`": (
        lambda: Adam(parameters(), amsgrad=1), TypeError, "^amsgrad must be True or False.*amsgrad=1",  # type: ignore[arg-type]
    ),
    "Values of groups": (lambda: in_a_group(momentum=-0.9), ValueError, r"^momentum must be .*momentum=-0\.9"),
    "A parameter twice in a group": (twice, ValueError, "is the same parameter as"),
    "Sparse gradients": (sparse, ValueError, "gradient of parameter .* is sparse"),
    "Complex parameters": (complex_, TypeError, r"has dtype torch\.complex64"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused(what: str) -> None:
    attempt, error, message = REFUSED[what]
    with pytest.raises(error, match=message):
        attempt()


def test_the_documentation_lists_what_is_refused() -> None:
    text = (Path(__file__).parent.parent / "docs" / "pytorch.md").read_text(encoding="utf-8")
    section = text.split("\n## What is refused\n")[1].split("\n## ")[0]
    assert re.findall(r"^- (.*?)(?:: |, )", section, re.M) == [*REFUSED]


@pytest.mark.parametrize("flag", ["capturable", "differentiable"])
def test_what_is_refused_is_refused_everywhere(flag: str) -> None:
    params = parameters()
    train(params, opt := Adam(params[:2]))
    for attempt in (
        lambda: Adam([{"params": params, flag: True}]),
        lambda: opt.add_param_group({"params": params[2:], flag: True}),
        lambda: opt.load_state_dict(torch.optim.Adam(params[:2], **{flag: True}).state_dict()),
    ):
        before = copy.deepcopy(opt.state_dict())
        with pytest.raises(ValueError, match=f"{flag}=True asks for"):
            attempt()
        assert str(opt.state_dict()) == str(before)
