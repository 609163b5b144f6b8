"""Cautious, Lookahead and Centralized around rules of neon and of one's own, against their equations in float64."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
import torch
from constructors import RULES, described, without_vectors
from reference import Array
from rule_cases import PlainLayer
from state_tensors import tensors_of
from torch import Tensor, nn

from neon.engine.backends import use_backend
from neon.optimizers import (
    LAMB,
    ROWS,
    WEIGHT,
    Adafactor,
    AdamW,
    Cautious,
    Centralized,
    GradientDescentMomentum,
    Lion,
    Lookahead,
    MultiOptimizer,
    Optimizer,
    Prodigy,
    RMSProp,
    ScheduleFree,
    State,
    Transform,
)
from neon.optimizers.functions import mean

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 20
SHAPES: tuple[tuple[int, ...], ...] = ((6, 5), (7,), (4, 3, 2, 5), (), (3, 2, 4))


class Own(Optimizer):
    """A rule of one's own, with a state that does not start at 0."""

    @staticmethod
    def rule(w, g, average=0.5, *, lr=0.1, share=0.25):  # type: ignore[no-untyped-def]
        average = average + share * (g - average)
        return w - lr * average / (1 + abs(average)), average


@dataclass(kw_only=True)
class OwnByHand(reference.Reference):
    shared = False
    states = 1

    def first_states(self, w: Array) -> list[Array]:
        return [np.full_like(w, 0.5)]

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        s[0] = 0.75 * s[0] + 0.25 * g
        return w - self.learning_rate * s[0] / (1 + np.abs(s[0]))


REFERENCES: dict[str, Any] = reference.REFERENCES
REFERENCES.pop("OwnByHand")  # it is of this file alone

BETAS: dict[str, Any] = {"beta_1": 0.8, "beta_2": 0.9}
INNER: dict[str, tuple[Callable[..., Optimizer], Callable[[], reference.Reference]]] = {
    "adamw": (
        lambda **o: AdamW(learning_rate=0.1, wdecay=0.2, epsilon=1e-3, **BETAS, **o),
        lambda: REFERENCES["AdamW"](**BETAS, epsilon=1e-3),
    ),
    "lion": (
        lambda **o: Lion(learning_rate=0.1, wdecay=0.2, **BETAS, **o), lambda: REFERENCES["Lion"](**BETAS)
    ),
    "momentum": (
        lambda **o: GradientDescentMomentum(0.1, 0.7, wdecay=0.2, decay_form="decoupled", **o),
        lambda: REFERENCES["GradientDescentMomentum"](momentum_coef=0.7),
    ),
    "own": (lambda **o: Own(wdecay=0.2, decay_form="decoupled", **o), OwnByHand),
}  # fmt: skip
MADE: dict[str, tuple[Callable[..., Transform], dict[str, Any]]] = {
    "Cautious": (Cautious, {}),
    "Lookahead": (Lookahead, {"k": 3, "alpha": 0.8}),
    "Centralized": (Centralized, {}),
}


def gradient(step: int, shape: tuple[int, ...], place: int = 0) -> Array:
    return np.random.default_rng(1000 * step + place).standard_normal(shape)


@pytest.mark.parametrize("inner", INNER)
@pytest.mark.parametrize("name", MADE)
def test_twenty_steps_are_those_of_the_equations(name: str, inner: str) -> None:
    """With a clip by norm and a decoupled decay, and with rates that fall."""
    (kind, own), (make, base) = MADE[name], INNER[inner]
    ws = [gradient(0, shape, 1) for shape in SHAPES]
    params = [nn.Parameter(torch.tensor(w)) for w in ws]
    optimizer = kind(make(gradient_clip_norm=6.0), **own).attach(params)
    by_hand = REFERENCES[name](base=base(), gradient_clip_norm=6.0, wdecay=0.2, **own)
    for t in range(1, STEPS + 1):
        by_hand.learning_rate = optimizer.param_groups[0]["lr"] = 0.1 / t
        gs = [gradient(t, shape, place) for place, shape in enumerate(SHAPES)]
        for param, g in zip(params, gs, strict=True):
            param.grad = torch.tensor(g)
        optimizer.step()
        by_hand.step(ws, gs)
    for place, (param, w) in enumerate(zip(params, ws, strict=True)):
        np.testing.assert_allclose(param.detach().numpy(), w, rtol=0, atol=1e-14)
        kept = [tensor for state, tensor in optimizer.state[param].items() if state != "step"]
        for tensor, expected in zip(kept, by_hand.state[place], strict=True):
            np.testing.assert_allclose(tensor.numpy(), expected, rtol=0, atol=1e-14)


# -- what each does of its own ---------------------------------------------------------------------


def descent(kind: Callable[..., Transform], w: Tensor, g: Tensor, **options: Any) -> Tensor:
    param = nn.Parameter(w.clone())
    param.grad = g.clone()
    kind(GradientDescentMomentum(0.1, 0.0, **options)).attach([param]).step()
    return param.detach()


def test_cautious_by_hand() -> None:
    param = nn.Parameter(torch.ones(4))
    optimizer = Cautious(GradientDescentMomentum(0.5, 0.5)).attach([param])
    for g in ([1.0, 1.0, 1.0, 1.0], [1.0, -0.25, 0.0, -1.0]):  # the velocities of the second: −¾, −⅛, −¼, ¼
        param.grad = torch.tensor(g)
        optimizer.step()
    # first all move by −½; then two of four go down their gradients, twice as far
    torch.testing.assert_close(param.detach(), torch.tensor([0.5 - 1.5, 0.5, 0.5, 0.5 + 0.5]))
    torch.testing.assert_close(optimizer.state[param]["velocity"], torch.tensor([-0.75, -0.125, -0.25, 0.25]))


def test_few_of_a_large_tensor_grow_by_a_thousand_at_most() -> None:
    g = torch.zeros(5000)
    g[0] = 1.0
    assert descent(Cautious, torch.zeros(5000), g)[0].item() == pytest.approx(-100.0)
    assert torch.equal(descent(Cautious, torch.ones(3), torch.zeros(3)), torch.ones(3))


def test_cautious_sees_signs_of_what_weights_round_away() -> None:
    """A change that is too small to change its weight, and a product too small for float32."""
    found = descent(Cautious, torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([1e-8, 1e-8, 1e-30, 1e-30]))
    torch.testing.assert_close(found, torch.tensor([1.0, 1.0, -1e-31, -1e-31]), rtol=1e-6, atol=0)


def test_a_decay_is_beside_the_mask_where_it_is_beside_the_step() -> None:
    w, g = torch.tensor([1.0, -1.0]), torch.tensor([0.0, 0.0])
    assert torch.equal(descent(Cautious, w, g, wdecay=0.5, decay_form="decoupled"), 0.95 * w)
    # a coupled one is gradient
    assert torch.equal(descent(Cautious, w, g, wdecay=0.5), 0.95 * w)
    torch.testing.assert_close(descent(Cautious, w, torch.tensor([0.0, 1.0]), wdecay=0.5), torch.tensor([0.95, -1.05]))
    rate: dict[str, Any] = {"learning_rate": 0.1, "wdecay": 0.5}
    for own in (AdamW(**rate), Lion(**rate), Adafactor(**rate)):
        param = nn.Parameter(w.clone())
        param.grad = g.clone()
        Cautious(own).attach([param]).step()
        if not isinstance(own, Adafactor):
            assert torch.equal(param.detach(), 0.95 * w)


def test_slow_weights_are_evaluated() -> None:
    model, start = net(), net()
    optimizer = Lookahead(AdamW(), k=3).attach(model)
    train(model, optimizer, 1, 2)
    with optimizer.evaluating():
        assert same(model, start)
    train(model, optimizer, 3)
    before = [param.detach().clone() for param in model.parameters()]
    optimizer.eval()
    assert all(map(torch.equal, model.parameters(), before))
    optimizer.train()
    assert not same(model, start)


def test_slow_weights_of_sixteen_bits_are_float32() -> None:
    model = net(torch.bfloat16)
    optimizer = Lookahead(AdamW(state_dtype="int8"), k=2).attach(model)
    train(model, optimizer, 1, 2)
    for param in model.parameters():
        slow = optimizer.state[param]["slow_weight"]
        assert slow.dtype == torch.float32
        assert torch.equal(slow.bfloat16(), param.detach())
    assert optimizer.state[next(model.parameters())]["exp_avg"].dtype == torch.int8
    split, whole = net(torch.bfloat16), net(torch.bfloat16).float()
    low, high = Lookahead(AdamW(master="split"), k=2).attach(split), Lookahead(AdamW(), k=2).attach(whole)
    for step in range(1, 6):
        for place, (a, b) in enumerate(zip(split.parameters(), whole.parameters(), strict=True)):
            a.grad = torch.tensor(gradient(step, tuple(a.shape), place)).bfloat16()
            b.grad = a.grad.float()
        low.step()
        high.step()
    for a, b in zip(split.parameters(), whole.parameters(), strict=True):
        assert torch.equal(low.state[a]["slow_weight"], high.state[b]["slow_weight"])


def test_each_tensor_is_counted_by_its_own_updates() -> None:
    a, b = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = Lookahead(GradientDescentMomentum(1.0, 0.0), k=2).attach([a, b])
    for step in range(2):
        a.grad, b.grad = torch.ones(2), torch.ones(2) if step else None
        optimizer.step()
    assert (a.tolist(), b.tolist()) == ([-1, -1], [-1, -1])
    assert (optimizer.state[a]["slow_weight"].tolist(), optimizer.state[b]["slow_weight"].tolist()) == (
        [-1, -1],
        [0, 0],
    )


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("backend", ["eager", "numba", "triton"])
def test_a_convolution_is_seen_as_one_matrix(backend: str, layout: torch.memory_format) -> None:
    w = torch.zeros(64, 16, 3, 3).contiguous(memory_format=layout)
    g = torch.tensor(gradient(1, (64, 16, 3, 3))).float() + 5
    with use_backend(backend):
        found = descent(Centralized, w, g)
    expected = -0.1 * (g.double() - g.double().mean((1, 2, 3), keepdim=True))
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=1e-7)


# -- as optimizers like any other ------------------------------------------------------------------


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Conv2d(16, 33, 3), nn.Linear(70, 80), nn.Tanh(), nn.Linear(80, 3)).to(dtype)


def train(model: nn.Module, optimizer: Any, *steps: int) -> None:
    for step in steps:
        for place, param in enumerate(model.parameters()):
            param.grad = torch.tensor(gradient(step, tuple(param.shape), place)).to(param)
        optimizer.step()


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(map(torch.equal, one.parameters(), other.parameters()))


def bits(model: nn.Module, optimizer: Any) -> list[list[int]]:
    tensors = [t for p in model.parameters() for t in (p, *tensors_of(optimizer.state[p]))]
    return [t.detach().reshape(-1).view(torch.uint8).tolist() for t in tensors]


@pytest.mark.parametrize("backend", ["numba", "triton"])
@pytest.mark.parametrize("state_dtype", [None, "int8", "bfloat16"])
@pytest.mark.parametrize("name", MADE)
def test_backends_have_the_same_bits(name: str, state_dtype: str | None, backend: str) -> None:
    found = []
    for each in ("eager", backend):
        with use_backend(each):
            model = net()
            optimizer = MADE[name][0](AdamW(state_dtype=state_dtype, gradient_clip_norm=1.0)).attach(model, audit=False)
            train(model, optimizer, *range(1, 7))
            found.append(bits(model, optimizer))
    assert found[0] == found[1]


@pytest.mark.parametrize("state_dtype", [None, "int8", "bfloat16"])
@pytest.mark.parametrize("name", MADE)
def test_a_checkpoint_resumes_to_the_bit(name: str, state_dtype: str | None) -> None:
    """Between two steps of slow weights; saved while these are evaluated, too."""
    for mode in ("train", "eval"):
        made = MADE[name][0](AdamW(state_dtype=state_dtype))
        model, fresh = net(), net()
        optimizer, resumed = (made.attach(each, audit=False) for each in (model, fresh))
        train(model, optimizer, *range(1, 8))
        getattr(optimizer, mode)()
        file = io.BytesIO()
        torch.save((model.state_dict(), optimizer.state_dict()), file)
        file.seek(0)
        weights, states = torch.load(file, weights_only=True)
        optimizer.train()
        fresh.load_state_dict(weights)
        resumed.load_state_dict(states)
        for each in ((model, optimizer), (fresh, resumed)):
            train(*each, *range(8, 12))
        assert bits(model, optimizer) == bits(fresh, resumed)


@pytest.mark.parametrize("name", MADE)
def test_layer_lists_take_the_same_steps(name: str) -> None:
    model, other = net(), net()
    made, attached = (MADE[name][0](AdamW()) for _ in range(2))
    layer, optimizer = PlainLayer([*model.parameters()]), attached.attach(other)
    for step in range(6):
        train(other, optimizer, step)
        for a, b in zip(model.parameters(), other.parameters(), strict=True):
            a.grad = b.grad
        made.optimize([layer], 0)
    assert same(model, other)


@pytest.mark.parametrize("name", MADE)
def test_in_backward(name: str) -> None:
    ws = [nn.Parameter(torch.full((3, 2), 2.0)) for _ in range(2)]
    one: Any = MADE[name][0](AdamW(), **MADE[name][1]).attach(ws[:1], in_backward=True)
    other = MADE[name][0](AdamW(), **MADE[name][1]).attach(ws[1:])
    assert one.param_groups
    for _ in range(4):
        for w in ws:
            (w**3 * torch.arange(6).view(3, 2)).sum().backward()
        other.step()
        other.zero_grad()
    assert torch.equal(*ws)


@pytest.mark.parametrize("name", MADE)
def test_what_is_not_finite_shows(name: str) -> None:
    for wrong in (math.nan, math.inf):
        w = nn.Parameter(torch.ones(3, 2))
        optimizer = MADE[name][0](AdamW()).attach([w])
        w.grad = torch.ones(3, 2)
        w.grad[1, 0] = wrong
        optimizer.step()
        assert w[1, 0].isnan()
        assert w[0].isfinite().all()
        assert w[1, 1].isnan() == (name == "Centralized")


@pytest.mark.parametrize("inner", [inner for inner in RULES if inner not in MADE])
@pytest.mark.parametrize("name", MADE)
def test_around_every_exported_rule(name: str, inner: str) -> None:
    kind = MADE[name][0]
    if name == "Lookahead" and inner == "ScheduleFree":
        with pytest.raises(TypeError, match="each say what a weight is at evaluation"):
            kind(described(inner)).attach(net())
        return
    if name == "Centralized" and inner in ("Adafactor", "NorMuon"):
        with pytest.raises(TypeError, match="one sees a tensor of many dimensions as one matrix, the other as"):
            kind(described(inner))
        return
    model = without_vectors(inner, net(torch.bfloat16 if inner == "ScheduleFree" else torch.float32))
    with use_backend("eager"):
        optimizer = kind(described(inner)).attach(model)
        train(model, optimizer, *range(1, 7))
    assert all(param.isfinite().all() for param in model.parameters())


def test_around_each_other() -> None:
    model = net()
    made = Lookahead(Cautious(Centralized(AdamW(wdecay=0.1, gradient_clip_norm=1.0))), k=2)
    optimizer = made.attach(model)
    train(model, optimizer, 1, 2, 3)
    assert [*optimizer.state[next(model.parameters())]] == ["step", "slow_weight", "exp_avg", "exp_avg_sq"]
    mapping = MultiOptimizer({"default": RMSProp(), "3": Cautious(Lion())}).attach(net())
    train(net(), mapping, 1)
    assert repr(Cautious(Lion(decay_form="cautious"))) == (
        "Cautious(Lion(lr=0.0001, betas=(0.9, 0.99), decay_form='cautious'))"
    )
    assert repr(made).startswith("Lookahead(Cautious(Centralized(AdamW(weight_decay=0.1, lr=0.001, ")


class OfRows(Optimizer):
    """Rows without a state, and without asking for the dimensions."""

    @staticmethod
    def rule(w, g, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w - lr * (g - mean(g, over=ROWS))


class Flattened(Optimizer):
    @staticmethod
    def rule(w, g, row=State(of=ROWS), *, lr=0.1, flattened):  # type: ignore[no-untyped-def]
        return w - lr * g, row


class Twice(Transform):
    """An update of which the weight is written as a sum of sums, and one of which it is not."""

    @staticmethod
    def around(inner, w, g, kept=State(WEIGHT)):  # type: ignore[no-untyped-def]
        return w + inner.change(w, g), kept + inner.change(w, g)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "k of 0": (lambda: Lookahead(AdamW(), k=0), "k must be at least 1. Received: k=0"),
    "a share": (lambda: Lookahead(AdamW(), alpha=1.5), r"alpha must be in the interval \[0, 1\]"),
    "an average": (lambda: Lookahead(AdamW(weight_average=0.9)).attach(net()), "leave weight_average out"),
    "itself": (lambda: Lookahead(Lookahead(AdamW())), "both have slow_weight: choose another name"),
    "few bits": (
        lambda: Lookahead(AdamW(state_dtype={"slow_weight": "int8"})).attach(net()), "8 bits are too few of a weight"
    ),
    "rows": (lambda: Centralized(Adafactor()), "one sees a tensor of many dimensions as one matrix, the other as"),
    "rows of one's own": (lambda: Centralized(OfRows()).attach(net()), "Of centralized and ofrows.* one sees"),
    "states of rows": (
        lambda: Flattened().attach(net()), "keeps states of rows or columns, and asks for tensors that are flattened"
    ),
    "a form": (
        lambda: Cautious(Prodigy(decay_form="decoupled")).attach(net()), "Prodigy decays by d·α.*decay_form cannot"
    ),
    "a change twice": (lambda: Twice(AdamW()).attach(net()), "It was called 2 times"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_had_is_refused_by_name(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_what_is_within_a_step_is_masked_with_it() -> None:
    """LAMB's decay is in what its norm is taken of."""
    model = net()
    optimizer = Cautious(LAMB(wdecay=0.5)).attach(model)
    train(model, optimizer, 1)
    assert optimizer._rules.settings(optimizer.param_groups[0]).program.name == "cautious_lamb"
    assert ScheduleFree(Cautious(Lion())).group()["momentum"] == 0.9
