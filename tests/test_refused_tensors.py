"""Tensors that no kernel can update: each is refused by name, at the first step or later, with nothing changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import neon.torch
from neon.optimizers import Adam, AdamW, GradientDescentMomentum, MultiOptimizer

pytestmark = pytest.mark.usefixtures("one_thread")


class Wrapped(Tensor):
    """A tensor that keeps another one inside, as quantised weights do, and has no memory of its own."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapped:
        return Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined]

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def unwrap(x: Any) -> Any:
            return x.inner if isinstance(x, Wrapped) else x

        result = func(*map(unwrap, args), **{name: unwrap(x) for name, x in (kwargs or {}).items()})
        return Wrapped(result) if isinstance(result, Tensor) else result


def fake(*shape: int) -> Tensor:
    with FakeTensorMode():
        return torch.ones(shape)


def quantised() -> Tensor:
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


def untrained(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


# name: (the last of three parameters, given the first; its gradient, given both and the states, error, what is said)
Last = Callable[[Tensor], Tensor]
Gradient = Callable[[Tensor, Tensor, Any], Tensor]
REFUSED: dict[str, tuple[Last, Gradient, type[Exception], str]] = {
    "on no device": (
        lambda first: nn.Parameter(torch.ones(3, device="meta")),
        lambda last, first, state: torch.ones(3, device="meta"),
        ValueError,
        "'last' has no memory of its own .* on device meta",
    ),
    "fake": (
        lambda first: nn.Parameter(fake(3)),
        lambda last, first, state: fake(3),
        ValueError,
        "'last' has no memory of its own",
    ),
    "a wrapper": (
        lambda first: nn.Parameter(Wrapped(torch.ones(3))),
        lambda last, first, state: Wrapped(torch.ones(3)),
        ValueError,
        r"'last' has no memory of its own \(a Wrapped\)",
    ),
    "a gradient that is a wrapper": (
        lambda first: nn.Parameter(torch.ones(3)),
        lambda last, first, state: Wrapped(torch.ones(3)),
        ValueError,
        "gradient of parameter 'last' has no memory of its own",
    ),
    "quantised": (
        lambda first: untrained(quantised()),
        lambda last, first, state: quantised(),
        TypeError,
        "'last' has dtype torch.qint8",
    ),
    "in the layout of another library": (
        lambda first: untrained(torch.ones(3, 3).to_mkldnn()),
        lambda last, first, state: torch.ones(3, 3).to_mkldnn(),
        ValueError,
        "'last' has layout torch._mkldnn",
    ),
    "nested": (
        lambda first: nn.Parameter(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)),
        lambda last, first, state: last.detach().clone(),
        ValueError,
        "'last' has layout torch.jagged",
    ),
    "negated lazily": (
        lambda first: nn.Parameter(torch._neg_view(torch.ones(3))),
        lambda last, first, state: torch.ones(3),
        ValueError,
        r"'last' is a lazily negated view; call .resolve_neg\(\)",
    ),
    "overlapping itself": (
        lambda first: nn.Parameter(torch.ones(9).as_strided((4, 2), (1, 1))),
        lambda last, first, state: torch.ones(4, 2),
        ValueError,
        "'last' is .*elements share memory",
    ),
    "a part of another": (
        lambda first: nn.Parameter(first.data[1:]),
        lambda last, first, state: torch.ones(2),
        ValueError,
        "'last'.* shares memory with parameter 'first'",
    ),
    "another over the same memory": (
        lambda first: nn.Parameter(first.data),
        lambda last, first, state: torch.ones(3),
        ValueError,
        "'(first|last)'.* shares memory with parameter '(first|last)'",
    ),
    "columns of another": (
        lambda first: nn.Parameter(first.data.as_strided((2, 1), (2, 1))),
        lambda last, first, state: torch.ones(2, 1),
        ValueError,
        "'(first|last)'.* shares memory with parameter '(first|last)'",
    ),
    "a gradient shifted against its parameter": (
        lambda first: nn.Parameter(torch.ones(9)[1:4]),
        lambda last, first, state: last.data.as_strided((3,), (1,), 0),
        ValueError,
        "gradient of parameter 'last' shares memory",
    ),
    "a gradient that is another parameter": (
        lambda first: nn.Parameter(torch.ones(3)),
        lambda last, first, state: first.data,
        ValueError,
        "gradient of parameter 'last' shares memory",
    ),
    "a gradient that is a state": (
        lambda first: nn.Parameter(torch.ones(3)),
        lambda last, first, state: state[first]["exp_avg"],
        ValueError,
        "gradient of parameter 'last' shares memory",
    ),
    "a gradient within a state": (
        lambda first: nn.Parameter(torch.ones(2)),
        lambda last, first, state: state[first]["exp_avg"][1:],
        ValueError,
        "gradient of parameter 'last' shares memory",
    ),
}
SHARING = ("a part of another", "another over the same memory", "columns of another")
CASES = [(name, when) for name in REFUSED for when in ("first", "later") if when == "later" or "state" not in name]


def kept(optimizer: Any, params: list[Any]) -> list[Any]:
    states = [(name, value.clone()) for p in params for name, value in sorted(optimizer.state.get(p, {}).items())]
    return [[p.detach().clone() for p in params], [value for _, value in states], [name for name, _ in states]]


def assert_kept(optimizer: Any, params: list[Any], before: list[Any]) -> None:
    after = kept(optimizer, params)
    assert after[2] == before[2]
    assert all(map(torch.equal, after[0] + after[1], before[0] + before[1]))


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions")
@pytest.mark.parametrize(("name", "when"), CASES)
def test_it_is_refused_by_name_and_nothing_is_changed(name: str, when: str) -> None:
    make, gradient, error, message = REFUSED[name]
    good = [nn.Parameter(torch.full((3,), 2.0)) for _ in range(2)]
    last = make(good[0])
    memory = last.data
    if name in SHARING:  # only later: such parameters cannot be attached
        last.data = memory.clone()
    optimizer = Adam(learning_rate=0.1).attach([("first", good[0]), ("second", good[1]), ("last", last)])
    if name in SHARING:
        last.data = memory
    for p in good:
        p.grad = torch.ones(3)
    for _ in range(3 if when == "later" else 0):  # the last one has no gradient yet
        optimizer.step()
    last.grad = gradient(last, good[0], optimizer.state)
    before = kept(optimizer, good)
    for _ in range(2):
        with pytest.raises(error, match=message):
            optimizer.step()
    assert_kept(optimizer, good, before)
    assert not optimizer.state.get(last)
    last.grad = None
    optimizer.step()  # and it goes on, with the right counts
    assert [int(optimizer.state[p]["step"]) for p in good] == [4 if when == "later" else 1] * 2


# How two parameters over one memory may come to an optimizer.
ENTRANCES: dict[str, Callable[[Any], Any]] = {
    "module": lambda m: Adam().attach(m),
    "module, in the backward pass": lambda m: Adam().attach(m, in_backward=True),
    "mapping": lambda m: MultiOptimizer({"default": Adam(), "b": AdamW()}).attach(m),
    "named parameters": lambda m: Adam().attach(m.named_parameters()),
    "parameters": lambda m: Adam().attach(m.parameters()),
    "groups": lambda m: Adam().attach([{"params": m.a.parameters()}, {"params": m.b.parameters()}]),
    "drop-in": lambda m: neon.torch.AdamW(m.parameters()),
    "add_param_group": lambda m: Adam().attach(m.a.parameters()).add_param_group({"params": m.b.parameters()}),
    "add_layers": lambda m: Adam().attach(m.a).add_layers(m),
}


@pytest.mark.parametrize("name", SHARING)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_two_parameters_over_one_memory_are_refused_by_name(entrance: str, name: str) -> None:
    model = nn.ModuleDict({"a": nn.ParameterDict(), "b": nn.ParameterDict()})
    model.a["w"] = nn.Parameter(torch.ones(3))  # type: ignore[index, union-attr]
    model.b["w"] = REFUSED[name][0](model.a["w"])  # type: ignore[index, union-attr]
    named = entrance in ("module", "module, in the backward pass", "mapping", "named parameters", "add_layers")
    names = "'a?.?w' and 'b.w'" if named else r"\"params\[0\] of 'default'\" and \"params\[[01]\] of 'default'\""
    with pytest.raises(ValueError, match=f"Parameters {names} are two over one memory"):
        ENTRANCES[entrance](model)


@pytest.mark.parametrize("add", ["add_param_group", "add_layers"])
def test_what_is_refused_when_it_is_added_leaves_no_trace(add: str) -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2)})
    optimizer = Adam().attach(model)
    model["b"] = nn.Linear(2, 2)
    model["c"] = nn.Linear(2, 2)
    model["c"].weight = nn.Parameter(model["a"].weight.data)
    before = [list(map(id, group["params"])) for group in optimizer.param_groups]
    group = {"params": [("b", model["b"].weight), ("c", model["c"].weight)]}
    call = (lambda: optimizer.add_layers(model)) if add == "add_layers" else lambda: optimizer.add_param_group(group)
    with pytest.raises(ValueError, match="two over one memory"):
        call()
    assert [list(map(id, group["params"])) for group in optimizer.param_groups] == before


def test_a_frozen_parameter_may_look_at_the_memory_of_another() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    model["b"].weight = nn.Parameter(model["a"].weight.data, requires_grad=False)
    optimizer = GradientDescentMomentum(1.0, 0.0).attach(model)
    before = model["b"].weight.clone()
    model["a"].weight.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(model["b"].weight, before - 1)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("kind", ["freed", "on no device", "empty", "one object"])
def test_what_has_no_address_goes_by_object(kind: str) -> None:
    model = nn.ModuleDict({name: nn.Linear(3, 0 if kind == "empty" else 3) for name in "abcdefgh"})
    for p in model.parameters():
        if kind == "freed":
            p.untyped_storage().resize_(0)
    if kind == "on no device":
        model.to("meta")
    elif kind == "one object":
        model["h"].weight = model["a"].weight
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == (15 if kind == "one object" else 16)
    for optimizer in (
        Adam().attach(model),
        Adam().attach(model.named_parameters()),
        MultiOptimizer({"default": Adam()}).attach(model),
    ):
        assert [name for group in optimizer.param_groups for name in group["param_names"]] == names


TRANSFORMS: dict[str, Callable[[Callable[[Tensor], Tensor]], Any]] = {
    "vmap": lambda function: torch.func.vmap(function)(torch.ones(4, 3)),
    "grad": lambda function: torch.func.grad(lambda x: function(x).sum())(torch.ones(3)),
    "functionalize": lambda function: torch.func.functionalize(function)(torch.ones(3)),
}


@pytest.mark.parametrize("which", ["gradient", "parameter"])
@pytest.mark.parametrize("when", [0, 3])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_within_a_transform_of_torchs_it_is_refused(name: str, when: int, which: str) -> None:
    """A tensor there stands for others; `torch.func` is for functions, a step is none."""
    params = [nn.Parameter(torch.zeros(3)) for _ in range(2)]
    optimizer = Adam().attach([("first", params[0]), ("last", params[1])])
    for p in params:
        p.grad = torch.ones(3)
    for _ in range(when):
        optimizer.step()
    before = kept(optimizer, params)

    def function(x: Tensor) -> Tensor:
        if which == "gradient":
            params[1].grad = x
        else:
            x.grad = torch.ones(3)
            optimizer.param_groups[0]["params"][1] = x
        optimizer.step()
        return x

    with pytest.raises(ValueError, match="has no memory of its own"):  # inside, that goes for new states as well
        TRANSFORMS[name](function)
    assert_kept(optimizer, params, before)


def test_states_that_share_memory_are_refused() -> None:
    params = [nn.Parameter(torch.zeros(3)) for _ in range(2)]
    optimizer = Adam().attach([("first", params[0]), ("last", params[1])])
    for p in params:
        p.grad = torch.ones(3)
    optimizer.step()
    for shared in (optimizer.state[params[0]]["exp_avg"], params[0].data):
        optimizer.state[params[1]]["exp_avg"] = shared
        before = kept(optimizer, params)
        with pytest.raises(ValueError, match=r"'(first|last)' or a state of it shares memory with parameter"):
            optimizer.step()
        assert_kept(optimizer, params, before)


# -- parameters that learn their size in the first forward pass ------------------------------------

UPDATERS: dict[str, Callable[..., Any]] = {
    "attach": lambda params, **options: Adam().attach(params, **options),
    "a group": lambda params, **options: Adam().attach([{"params": params}], **options),
    "a mapping": lambda params, **options: MultiOptimizer({"default": Adam()}).attach([{"params": params}], **options),
    "a drop-in class": neon.torch.AdamW,
}


@pytest.mark.parametrize("entrance", UPDATERS)
def test_lazy_parameters_are_updated_once_they_have_a_size(entrance: str) -> None:
    """As torch's classes do: a parameter without a gradient is left alone, and stays the same object."""
    layer = nn.LazyLinear(3)
    opt = UPDATERS[entrance]([*layer.parameters()])
    opt.step()
    layer(torch.ones(2, 4)).sum().backward()
    before = layer.weight.detach().clone()
    opt.step()
    assert not torch.equal(layer.weight, before)


@pytest.mark.parametrize("entrance", UPDATERS)
def test_what_needs_the_sizes_of_lazy_parameters_says_so(entrance: str) -> None:
    make = UPDATERS[entrance]
    known = nn.Linear(4, 3)
    saved = make([*known.parameters()]).state_dict()
    opt = make([*nn.LazyLinear(3).parameters()])
    with pytest.raises(ValueError, match=r"^load_state_dict needs the sizes of parameters.* Run one forward pass"):
        opt.load_state_dict(saved)
    with pytest.raises(ValueError, match=r"^in_backward=True needs the sizes of parameters"):
        make([*nn.LazyLinear(3).parameters()], in_backward=True)
    opt = make([*known.parameters()], in_backward=True)
    with pytest.raises(ValueError, match=r"^in_backward=True needs the sizes of parameters"):
        opt.add_param_group({"params": [*nn.LazyLinear(3).parameters()]})
    assert len(opt.param_groups) == 1
    known(torch.ones(2, 4)).sum().backward()
    opt.step()


def test_sums_of_lazy_parameters_cannot_be_shared() -> None:
    with pytest.raises(ValueError, match=r"^share_memory\(\) needs the sizes of parameters"):
        neon.torch.Adagrad(nn.LazyLinear(3).parameters()).share_memory()
