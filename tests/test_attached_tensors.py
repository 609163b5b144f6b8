"""Attached optimizers: what changes under them in mid-run, and every kind of tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from seeded_parameters import give, parameter, sgd, zeros
from torch import nn

from neon.optimizers import (
    Adam,
)


def assert_same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


# -- what changes under the optimizer --------------------------------------------------------------


def test_gradients_that_come_and_go() -> None:
    """Adam counts each tensor's own updates: a tensor that was left out twice is two behind."""
    params = [parameter(3, seed=i) for i in range(3)]
    alone = [nn.Parameter(p.detach().clone()) for p in params]
    opt = Adam(learning_rate=0.1).attach(params)
    apart = [torch.optim.Adam([p], lr=0.1) for p in alone]
    for step, present in enumerate(((0, 1), (0, 2), (), (1,), (0, 1, 2), (0, 1, 2))):
        for group in (params, alone):
            give(group, step)
            for number, p in enumerate(group):
                if number not in present:
                    p.grad = None
        opt.step()
        for torchs in apart:
            torchs.step()
    torch.testing.assert_close(params, alone, rtol=1e-6, atol=1e-7)
    assert [opt.state[p]["step"].item() for p in params] == [4, 4, 3]


def test_frozen_parameters_stay() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(requires_grad=False)
    before = model.weight.detach().clone()
    opt = sgd(1.0, wdecay=0.5).attach(model)
    model(torch.ones(1, 2)).sum().backward()
    opt.step()
    assert torch.equal(model.weight, before)
    assert model.weight not in opt.state


def test_parameters_without_any_gradient() -> None:
    opt = Adam(gradient_clip_norm=1.0).attach([parameter(2)])
    opt.step()
    assert not opt.state


@pytest.mark.parametrize("memory", ["new", "kept in place"])
def test_data_that_is_swapped(memory: str) -> None:
    w = zeros(2, 2)
    opt = sgd(1.0, 0.5).attach([w])
    opt.step()
    w.data = torch.full((2, 2), 5.0) if memory == "new" else w.data.fill_(5.0)
    opt.step()
    assert w.tolist() == [[3.5, 3.5], [3.5, 3.5]]
    assert w.grad.tolist() == [[1, 1], [1, 1]]  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["transposed", "channels last"])
def test_a_layout_that_changes_in_mid_run(how: str) -> None:
    """The velocity of each element stays with its element."""

    def turn(x: torch.Tensor) -> torch.Tensor:
        return x.t().contiguous().t() if how == "transposed" else x.contiguous(memory_format=torch.channels_last)

    shape = (3, 3) if how == "transposed" else (2, 3, 2, 2)
    turned, straight = parameter(*shape), parameter(*shape)
    runs = [(p, sgd(0.5, 0.5).attach([p])) for p in (turned, straight)]
    for step in range(4):
        for p, opt in runs:
            give([p], step)
            if p is turned and step == 2:
                p.data = turn(p.data)
            opt.step()
    assert turned.stride() != straight.stride()
    assert torch.equal(turned, straight)


def test_a_transposed_view_of_the_same_memory() -> None:
    """The address stays, every element moves: the plan must notice."""
    w = parameter(3, 3)
    opt = sgd(1.0).attach([w])
    give([w], 0)
    opt.step()
    w.data = w.data.t()
    expected = w.detach() - torch.arange(9.0).view(3, 3)
    w.grad = torch.arange(9.0).view(3, 3)
    opt.step()
    assert torch.equal(w, expected)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_data_that_shrinks_in_place(momentum: float) -> None:
    """Pruning, `p.data = p.data[:k]`: without states it goes on, with states that do not fit it is refused."""
    memory = torch.zeros(1000)
    w = nn.Parameter(memory)
    w.grad = torch.ones(1000)
    opt = sgd(1.0, momentum).attach([w])
    opt.step()
    w.data = w.data[:10]
    w.grad = torch.ones(10)
    if momentum:
        with pytest.raises(ValueError, match=r"shape \(1000,\).*needs the parameter's shape \(10,\)"):
            opt.step()
        assert (memory == -1).all()
    else:
        opt.step()
        assert (memory[:10] == -2).all()
        assert (memory[10:] == -1).all()


def test_parameters_that_are_replaced_in_their_group() -> None:
    """As FSDP2 and ZeRO do: groups are read again at each step."""
    old, new = zeros(2), zeros(2)
    opt = sgd(1.0, 0.5).attach([old])
    opt.step()
    opt.param_groups[0]["params"][0] = new
    opt.step()
    assert (old.tolist(), new.tolist()) == ([-1, -1], [-1, -1])
    opt.param_groups[0]["params"].append(old)
    opt.step()
    assert (old.tolist(), new.tolist()) == ([-2.5, -2.5], [-2.5, -2.5])


def test_one_flat_tensor_in_the_place_of_named_parameters() -> None:
    """As DeepSpeed does; what was set for the names that are no more is not lost in silence."""
    model, flat = nn.Linear(2, 1), zeros(3)
    opt: Any = sgd(1.0, 0.5).attach(model)
    opt.set("lr", 0.5, layers="bias")
    opt.param_groups[0]["params"] = [flat]
    with pytest.raises(ValueError, match=r"Call unset or unfreeze before parameters are replaced"):
        opt.step()
    opt.param_groups[0]["overrides"] = "{}"
    opt.step()
    opt.load_state_dict(opt.state_dict())
    opt.step()
    assert flat.tolist() == [-2.5] * 3
    with pytest.raises(ValueError, match="have no names"):
        opt.freeze("bias")


CLEARING: dict[str, Callable[[Any, nn.Parameter], Any]] = {
    "clear()": lambda opt, p: opt.state.clear(),
    "del": lambda opt, p: opt.state.__delitem__(p),
    "an empty dict": lambda opt, p: opt.state.__setitem__(p, {}),
    "the tensor's own clear()": lambda opt, p: opt.state[p].clear(),
    "a new state": lambda opt, p: setattr(opt, "state", type(opt.state)(dict)),
}


@pytest.mark.parametrize("how", CLEARING)
def test_state_that_the_user_clears(how: str) -> None:
    w = zeros(2)
    opt = Adam(learning_rate=1.0, beta_1=0.5, epsilon=1e-12).attach([w])
    opt.step()
    w.grad = -torch.ones(2)
    CLEARING[how](opt, w)
    opt.step()  # anew: a first step by the whole rate, against the gradient's sign
    assert w.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert opt.state[w]["step"].item() == 1
    assert opt.state[w]["exp_avg"].tolist() == [-0.5, -0.5]


def test_state_that_the_user_writes() -> None:
    w = zeros(1)
    opt = sgd(1.0, 0.5).attach([w])
    opt.step()
    [name] = set(opt.state[w]) - {"step"}
    opt.state[w][name].fill_(4.0)
    opt.step()
    assert w.item() == 0
    opt.state[w][name] = torch.tensor([8.0])
    opt.step()
    assert w.item() == 3
    opt.state[w]["step"].zero_()
    opt.step()
    assert opt.state[w]["step"].item() == 1


def test_a_count_that_the_user_replaces() -> None:
    w = zeros(1)
    opt = Adam(learning_rate=1.0, beta_1=0.5, beta_2=0.0, epsilon=1e-12).attach([w])
    opt.step()
    opt.state[w]["step"] = torch.tensor(99.0)
    opt.step()  # m = 0.5 · 0.5 + 0.5 with a correction that is no longer there
    assert w.item() == pytest.approx(-1 - 0.75)
    assert opt.state[w]["step"].item() == 100


# -- kinds of tensors ------------------------------------------------------------------------------


KINDS: dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor]]] = {
    "0-dim": lambda: (torch.tensor(2.0), torch.tensor(3.0)),
    "empty": lambda: (torch.zeros(0, 3), torch.zeros(0, 3)),
    "transposed": lambda: (torch.arange(6.0).view(2, 3).t(), torch.arange(6.0).view(3, 2)),
    "gradient transposed": lambda: (torch.arange(6.0).view(3, 2), torch.arange(6.0).view(2, 3).t()),
    "channels last": lambda: (
        torch.arange(16.0).view(1, 4, 2, 2).contiguous(memory_format=torch.channels_last),
        torch.arange(16.0).view(1, 4, 2, 2),
    ),
    "gradient channels last": lambda: (
        torch.arange(16.0).view(1, 4, 2, 2),
        torch.arange(16.0).view(1, 4, 2, 2).contiguous(memory_format=torch.channels_last),
    ),
    "gradient expanded": lambda: (torch.arange(6.0).view(3, 2), torch.tensor(2.0).expand(3, 2)),
    "gradient a row expanded": lambda: (torch.arange(6.0).view(3, 2), torch.tensor([1.0, 2.0]).expand(3, 2)),
    "gradient a slice": lambda: (torch.arange(6.0).view(3, 2), torch.arange(12.0).view(3, 4)[:, ::2]),
    "gradient backwards": lambda: (torch.arange(3.0), torch.arange(3.0).flip(0)),
    "a slice": lambda: (torch.arange(12.0).view(3, 4)[:, 1::2], torch.arange(6.0).view(3, 2)),
    "offset in its storage": lambda: (torch.arange(9.0)[5:], torch.arange(4.0)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_layout_beside_the_others(dtype: torch.dtype) -> None:
    """By hand, in numbers that every format holds: m' = ½m − ½g, w' = w + m'."""
    made = {name: tuple(x.to(dtype) for x in make()) for name, make in KINDS.items()}
    params = {name: nn.Parameter(w.clone(memory_format=torch.preserve_format)) for name, (w, _) in made.items()}
    for name, (w, _) in made.items():
        if name == "a slice":
            params[name] = nn.Parameter(w)
    opt = sgd(0.5, 0.5).attach(params.values())
    start = {name: p.detach().clone() for name, p in params.items()}
    for _ in range(2):
        for name, (_, g) in made.items():
            params[name].grad = g
        opt.step()
    for name, p in params.items():
        g = made[name][1]
        assert torch.equal(p.detach(), (start[name].double() - 0.5 * g.double() - 0.75 * g.double()).to(dtype)), name
        assert p.dtype == dtype
    assert len({state["step"].item() for state in opt.state.values()}) == 1


def test_several_precisions_in_one_optimizer() -> None:
    dtypes = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
    together = [parameter(5, dtype=dtype) for dtype in dtypes]
    apart = [parameter(5, dtype=dtype) for dtype in dtypes]
    runs = [Adam(learning_rate=0.1).attach(together), *(Adam(learning_rate=0.1).attach([p]) for p in apart)]
    for step in range(3):
        for params in (together, apart):
            for p in params:
                give([p], step)
        for opt in runs:
            opt.step()
    assert_same([p.detach() for p in together], [p.detach() for p in apart])
    assert [runs[0].state[p]["exp_avg"].dtype for p in together] == [torch.float64, *[torch.float32] * 3]


def test_one_norm_over_all_precisions() -> None:
    values = {torch.float64: 4.0, torch.float32: 4.0, torch.bfloat16: 4.0, torch.float16: 4.0}
    params = [zeros(1, dtype=dtype) for dtype in values]
    for p in params:
        p.grad = torch.full_like(p, 4.0)
    sgd(1.0, gradient_clip_norm=4.0).attach(params).step()
    assert [p.item() for p in params] == [-2] * 4


def test_a_gradient_that_has_a_history_itself() -> None:
    w = parameter(3, 2)
    opt = Adam().attach([w])
    before = w.detach().clone()
    [w.grad] = torch.autograd.grad((w.t() ** 3).sum(), w, create_graph=True)
    assert w.grad.requires_grad
    opt.step()
    torch.testing.assert_close(w.detach(), before - 0.001)
    assert w.requires_grad
    assert w.is_leaf


@pytest.mark.parametrize("kind", ["dense", "a slice"])
@pytest.mark.parametrize("how", ["attach", "optimize"])
def test_autograd_catches_the_use_of_a_stale_value(kind: str, how: str) -> None:
    memory = torch.ones(4, 4)
    w = nn.Parameter(memory if kind == "dense" else memory[:, ::2])
    loss = w.square().sum()
    w.grad = torch.ones_like(w)
    version = w._version
    if how == "attach":
        sgd(0.1).attach([w]).step()
    else:
        layer = nn.Module()
        layer.w = w
        sgd(0.1).optimize([layer], 0)
    assert w._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
