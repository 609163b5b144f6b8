"""Refusals at the step, where the bad tensor or number is the last of several: none is touched."""

# pyright: reportArgumentType=false
# the tables pass wrong types on purpose

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from neon.optimizers import (
    Adam,
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
    RMSProp,
    Schedule,
)


class Plain:
    """A layer that may give anything."""

    def __init__(self, name: str, param: Any, grad: Any) -> None:
        self.name, self.param, self.grad = name, param, grad
        self.states: list[Any] = []

    def get_params(self) -> Any:
        return (self.param, self.grad), self.states


def sparse() -> torch.Tensor:
    with torch.sparse.check_sparse_tensor_invariants():  # as an argument torch 2.11 warns that it is not checked
        return torch.sparse_coo_tensor(torch.tensor([[0, 2]]), torch.ones(2), (3,))


# title: (the last parameter, its gradient, its states, error, message)
TENSORS: dict[str, tuple[Any, Any, list[Any], type[Exception], str]] = {
    "sparse gradient": (torch.ones(3), sparse(), [], ValueError, r"gradient of.*'?last'?.*sparse.*to_dense\(\)"),
    "sparse parameter": (sparse(), torch.ones(3), [], ValueError, "last.*layout"),
    "complex parameter": (torch.ones(3) * 1j, torch.ones(3) * 1j, [], TypeError, "last.*complex64.*view_as_real"),
    "complex gradient": (torch.ones(3), torch.ones(3) * 1j, [], TypeError, "gradient of.*last.*complex64"),
    "integer parameter": (torch.ones(3, dtype=torch.int32), torch.ones(3), [], TypeError, "last.*int32"),
    "integer gradient": (torch.ones(3), torch.ones(3, dtype=torch.int64), [], TypeError, "gradient of.*last.*int64"),
    "expanded parameter": (torch.ones(1).expand(3), torch.ones(3), [], ValueError, "last.*expanded.*Clone"),
    "gradient of another shape": (torch.ones(3), torch.ones(2), [], ValueError, r"gradient of.*last.*\(2,\).*\(3,\)"),
    "gradient of another rank": (torch.ones(3), torch.ones(3, 1), [], ValueError, r"last.*\(3, 1\).*\(3,\)"),
    "too few states": (torch.ones(3), torch.ones(3), [torch.zeros(3)], ValueError, "states of last holds 1.*keeps 2"),
    "too many states": (
        torch.ones(3),
        torch.ones(3),
        [torch.zeros(3)] * 3,
        ValueError,
        "states of last holds 3.*keeps 2",
    ),
    "states of another shape": (
        torch.ones(3),
        torch.ones(3),
        [torch.zeros(3), torch.zeros(4)],
        ValueError,
        r"state of.*last.*\(4,\).*\(3,\)",
    ),
    "integer states": (
        torch.ones(3),
        torch.ones(3),
        [torch.zeros(3), torch.zeros(3, dtype=torch.int32)],
        ValueError,
        "state of.*last.*int32",
    ),
    "states that are no tensors": (
        torch.ones(3),
        torch.ones(3),
        [0.0, 0.0],
        TypeError,
        "state of.*last.*must be a tensor. Received: 0.0",
    ),
    "one tensor as two states": (torch.ones(3), torch.ones(3), [torch.zeros(3)] * 2, ValueError, "state.*last"),
    "a gradient on no device": (torch.ones(3), torch.ones(3, device="meta"), [], ValueError, "last.*meta"),
}


def mapping() -> MultiOptimizer:
    return MultiOptimizer(
        {"default": Adam(gradient_clip_norm=1.0), "second": GradientDescentMomentum(0.1, 0.9), "last": Adam()}
    )


def snapshot(layers: list[Plain]) -> list[Any]:
    kept = []
    for layer in layers:
        tensors = [layer.param, layer.grad, *layer.states]
        kept.append([t.clone() if isinstance(t, torch.Tensor) and not t.is_meta else t for t in tensors])
        kept.append(
            [(id(s), getattr(s, "_neon_step", torch.tensor(0.0)).item()) for s in layer.states if s is not None]
        )
    return kept


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.is_sparse:
            a, b = a.to_dense(), b.to_dense()
        return a.is_meta or (a.dtype == b.dtype and torch.equal(a, b))
    return a == b


@pytest.mark.parametrize("when", ["first", "later"])
@pytest.mark.parametrize("make", [Adam, mapping], ids=["Adam", "MultiOptimizer"])
@pytest.mark.parametrize("title", TENSORS)
def test_optimize_refuses_the_last_and_touches_none(title: str, make: Callable[[], Optimizer], when: str) -> None:
    param, grad, states, error, message = TENSORS[title]
    layers, control = (
        [Plain(name, torch.full((3,), 2.0), torch.ones(3)) for name in ("first", "second", "last")] for _ in range(2)
    )
    opt = make()
    if when == "later":
        opt.optimize(layers, 0)
        opt.optimize(layers, 0)
    last = layers[-1]
    if when == "first" or title.endswith("parameter"):
        last.param = param
    last.grad = grad
    if states:
        last.states[:] = states
    before = snapshot(layers)
    with pytest.raises(error, match=message):
        opt.optimize(layers, 0)
    after = snapshot(layers)
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        assert len(old) == len(new)
        assert all(map(same, old, new))
    layers[-1] = Plain("last", torch.ones(3), torch.ones(3))
    opt.optimize(layers, 0)  # and it goes on, with the right counts
    undisturbed = make()
    for _ in range(3 if when == "later" else 1):
        undisturbed.optimize(control, 0)
    assert all(torch.equal(a.param, b.param) for a, b in zip(layers[:2], control[:2], strict=True))


ATTACHED: dict[str, tuple[Callable[[], nn.Parameter], Callable[[nn.Parameter], torch.Tensor], type[Exception], str]] = {
    "sparse gradient": (lambda: nn.Parameter(torch.ones(3)), lambda p: sparse(), ValueError, r"last.*sparse.*to_dense"),
    "complex parameter": (
        lambda: nn.Parameter(torch.ones(3) * 1j),
        torch.ones_like,
        TypeError,
        "last.*complex64.*view_as_real",
    ),
    "integer parameter": (
        lambda: nn.Parameter(torch.ones(3, dtype=torch.int64), requires_grad=False),
        torch.ones_like,
        TypeError,
        "last.*int64",
    ),
    "expanded parameter": (
        lambda: nn.Parameter(torch.ones(1).expand(3)),
        torch.ones_like,
        ValueError,
        "last.*expanded",
    ),
    "float8 parameter": (
        lambda: nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn)),
        torch.ones_like,
        TypeError,
        "last.*float8",
    ),
}


def attached_tensors(opt: Any) -> list[torch.Tensor]:
    params = [p for group in opt.param_groups for p in group["params"]]
    return [*(p.detach().clone() for p in params), *(v.clone() for p in params for v in opt.state.get(p, {}).values())]


@pytest.mark.parametrize("when", ["first", "later"])
@pytest.mark.parametrize("make", [RMSProp, mapping], ids=["RMSProp", "MultiOptimizer"])
@pytest.mark.parametrize("title", ATTACHED)
def test_an_attached_step_refuses_the_last_and_touches_none(title: str, make: Any, when: str) -> None:
    made, gradient, error, message = ATTACHED[title]
    named = {name: nn.Parameter(torch.full((3,), 2.0)) for name in ("first", "second")} | {"last": made()}
    opt = make().attach(named.items())
    for name in ("first", "second"):
        named[name].grad = torch.ones(3)
    if when == "later":  # at first the last one has no gradient
        opt.step()
    named["last"].grad = gradient(named["last"])
    before, groups = attached_tensors(opt), [dict(group) for group in opt.param_groups]
    for _ in range(2):
        with pytest.raises(error, match=message):
            opt.step()
    after = attached_tensors(opt)
    assert len(before) == len(after)
    assert all(map(torch.equal, before, after))
    assert [dict(group) for group in opt.param_groups] == groups
    named["last"].grad = None
    opt.step()  # and it goes on
    assert not torch.equal(named["first"].detach(), before[0])


def test_a_state_that_does_not_fit_is_refused_whole() -> None:
    params = [nn.Parameter(torch.zeros(3)) for _ in range(2)]
    opt = Adam().attach(params)
    for p in params:
        p.grad = torch.ones(3)
    opt.step()
    opt.state[params[1]]["exp_avg"] = torch.zeros(4)
    before = attached_tensors(opt)
    with pytest.raises(ValueError, match=r"params\[1\].*\(4,\).*\(3,\)"):
        opt.step()
    assert all(map(torch.equal, before, attached_tensors(opt)))


@pytest.mark.parametrize("steps", [0, 1])
@pytest.mark.parametrize("value", ["fast", None, [0.1, 0.2]])
def test_a_number_that_is_spoiled_later_is_refused_whole(value: Any, steps: int) -> None:
    """The last group's: the others must not have moved when it is found out."""
    params = [nn.Parameter(torch.zeros(3)) for _ in range(2)]
    opt = GradientDescentMomentum(0.1, 0.9).attach([{"params": [p]} for p in params])
    for p in params:
        p.grad = torch.ones(3)
    for _ in range(steps):
        opt.step()
    for group in opt.param_groups[steps:]:
        group["lr"] = value
    before = attached_tensors(opt)
    with pytest.raises((TypeError, ValueError), match=r"lr(\[0\])? must be"):
        opt.step()
    assert all(map(torch.equal, before, attached_tensors(opt)))


def test_a_schedule_that_gives_no_number_is_refused_whole() -> None:
    class Broken(Schedule):
        def get_learning_rate(self, learning_rate: float, epoch: float) -> float:
            return math.nan if epoch else learning_rate

    layers = [Plain(name, torch.zeros(3), torch.ones(3)) for name in ("first", "last")]
    good, bad = GradientDescentMomentum(0.1, 0.9), GradientDescentMomentum(0.1, 0.9, schedule=Broken())
    opt = MultiOptimizer({"default": good, "last": bad})
    opt.optimize(layers, 0)
    before = snapshot(layers)
    with pytest.raises(ValueError, match=r"learning rate|lr"):
        opt.optimize(layers, 1)
    for old, new in zip(before, snapshot(layers), strict=True):
        assert all(map(same, old, new))


def test_rounding_wider_than_words_is_refused_for_float64() -> None:
    layers = [
        Plain("first", torch.zeros(3), torch.ones(3)),
        Plain("last", torch.zeros(3).double(), torch.ones(3).double()),
    ]
    with pytest.raises(ValueError, match=r"stochastic_round=10.*last.*float64"):
        Adam(stochastic_round=10).optimize(layers, 0)
    assert not layers[0].param.any()
    assert layers[0].states == []
