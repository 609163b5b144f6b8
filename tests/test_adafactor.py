"""Adafactor against a reference of its own and against torch's class, in every shape, on every backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import neon.torch
from neon.engine.backends import use_backend
from neon.optimizers import Adafactor, Lion, MultiOptimizer

SHAPES: list[tuple[int, ...]] = [(), (7,), (1,), (3, 4), (1, 1), (70, 130), (5, 1), (1, 200), (3, 4, 5), (6, 5, 3, 3)]


def reference(
    w: Any, grads: Sequence[Any], *, lr: float, tau: float, eps: tuple[float, float], d: float, decay: float
) -> Any:
    """torch's equations by hand, in float64."""
    row, col, v = 0.0, 0.0, 0.0
    for t, g in enumerate(grads, 1):
        share = t**tau
        alpha = max(eps[1], np.sqrt(np.mean(w * w))) * min(lr, 1 / np.sqrt(t))
        if w.ndim > 1:
            row = row + share * (np.mean(g * g, -1, keepdims=True) - row)
            col = col + share * (np.mean(g * g, -2, keepdims=True) - col)
            found = row * col / np.maximum(np.mean(row, -2, keepdims=True), eps[0])
        else:
            found = v = v + share * (g * g - v)
        u = g / np.sqrt(np.maximum(found, eps[0] ** 2))
        w = w - lr * decay * w - alpha / max(1.0, np.sqrt(np.mean(u * u)) / d) * u
    return w


def tensors(shape: tuple[int, ...], dtype: torch.dtype, steps: int = 20) -> tuple[Tensor, list[Tensor]]:
    """A weight and its gradients."""
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(steps + 1)]
    return made[0].to(dtype), [grad.to(dtype) for grad in made[1:]]


def stepped(optimizer: Any, w: Tensor, grads: Sequence[Tensor]) -> None:
    for grad in grads:
        w.grad = grad.clone(memory_format=torch.preserve_format)
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_twenty_steps_are_those_of_the_reference(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    w, grads = tensors(shape, dtype)
    numbers = {"lr": 0.05, "tau": -0.7, "eps": (1e-4, 1e-2), "d": 1.1, "decay": 0.1}
    expected = reference(w.double().numpy(), [grad.double().numpy() for grad in grads], **numbers)
    param = torch.nn.Parameter(w.clone())
    stepped(Adafactor(0.05, -0.7, 1e-4, 1e-2, 1.1, wdecay=0.1).attach([param]), param, grads)
    error = np.abs(param.detach().double().numpy() - expected).max()
    assert error <= (1e-14 if dtype == torch.float64 else 1.2e-6) * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_twenty_steps_are_torchs(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    w, grads = tensors(shape, dtype)
    ours, theirs = (torch.nn.Parameter(w.clone()) for _ in range(2))
    options: dict[str, Any] = {"lr": 0.05, "weight_decay": 0.1}
    mine, its = neon.torch.Adafactor([ours], **options), torch.optim.Adafactor([theirs], **options)
    stepped(mine, ours, grads)
    stepped(its, theirs, grads)
    bound = 1e-14 if dtype == torch.float64 else 1.2e-6
    torch.testing.assert_close(ours, theirs, rtol=bound, atol=bound)
    assert {*mine.state[ours]} == {*its.state[theirs]}
    for name, state in its.state[theirs].items():
        assert mine.state[ours][name].dtype == state.dtype
        torch.testing.assert_close(mine.state[ours][name], state, rtol=bound, atol=bound)


@pytest.mark.parametrize("ours_first", [True, False])
def test_a_checkpoint_goes_on_both_ways_in_mid_run(ours_first: bool) -> None:
    shapes = [(4, 3), (5,), (2, 3, 3, 3)]
    made = [tensors(shape, torch.float64) for shape in shapes]
    classes = [neon.torch.Adafactor, torch.optim.Adafactor]
    first, second = classes if ours_first else classes[::-1]
    straight = [torch.nn.Parameter(w.clone()) for w, _ in made]
    whole = torch.optim.Adafactor(straight, lr=0.03)
    halves = [torch.nn.Parameter(w.clone()) for w, _ in made]
    one = first(halves, lr=0.03)
    for step in range(20):
        for params, optimizer in ((straight, whole), (halves, one)):
            for param, (_, grads) in zip(params, made, strict=True):
                param.grad = grads[step].clone()
            optimizer.step()
        if step == 9:
            saved = one.state_dict()
            one = second(halves, lr=1.0)
            one.load_state_dict(saved)
    for a, b in zip(straight, halves, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)


# -- formats, layouts, backends --------------------------------------------------------------------

LAYOUTS = {
    "as it comes": lambda w: w,
    "transposed": lambda w: w.mT.contiguous().mT,
    "a part": lambda w: torch.cat([w, w], -1)[..., : w.shape[-1]],
    "channels last": lambda w: w.to(memory_format=torch.channels_last),
}
FORMS: dict[str, dict[str, Any]] = {
    "torch's": {},
    "clipped": {"gradient_clip_norm": 1.0, "wdecay": 0.1},
    "transformers'": {"epsilon_1": 1e-30, "eps_in_squares": True, "relative_step": False, "scale_parameter": False},
    "with momentum": {"momentum_coef": 0.9},
    "rounded at random": {"stochastic_round": True, "wdecay": 0.1},
}


def run(form: str, backend: str, dtype: torch.dtype, shapes: Sequence[tuple[int, ...]], steps: int = 3) -> list[Tensor]:
    """The weights and states after some steps."""
    made = [tensors(shape, dtype, steps) for shape in shapes]
    params = [torch.nn.Parameter(w) for w, _ in made]
    with use_backend(backend):
        optimizer = Adafactor(0.05, **FORMS[form]).attach(params)
        for step in range(steps):
            for param, (_, grads) in zip(params, made, strict=True):
                param.grad = grads[step]
            optimizer.step()
    return [t.detach() for param in params for t in (param, *optimizer.state[param].values())]


@pytest.mark.parametrize("backend", ["numba", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_every_backend_gives_the_same_bits(form: str, dtype: torch.dtype, backend: str) -> None:
    shapes = [shape for shape in SHAPES if len(shape) != 1] if backend == "triton" else [*SHAPES, (300, 700)]
    for ours, theirs in zip(run(form, backend, dtype, shapes), run(form, "eager", dtype, shapes), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "as it comes"])
def test_layouts_make_no_difference(layout: str) -> None:
    w, grads = tensors((6, 5, 3, 4), torch.float64)
    plain, laid = torch.nn.Parameter(w.clone()), torch.nn.Parameter(LAYOUTS[layout](w.clone()))
    assert not laid.is_contiguous()
    stepped(Adafactor().attach([plain]), plain, grads)
    stepped(Adafactor().attach([laid]), laid, [LAYOUTS[layout](grad) for grad in grads])
    assert torch.equal(plain, laid)


def test_of_an_empty_weight_nothing_is_computed() -> None:
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in ((0, 3), (3, 0), (0,), (2, 2))]
    optimizer = Adafactor().attach(params)
    for _ in range(2):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
    assert [tuple(optimizer.state[params[0]][name].shape) for name in ("row_var", "col_var")] == [(0, 1), (1, 3)]
    assert not any(t.isnan().any() for param in params for t in optimizer.state[param].values())
    assert params[3].max() < 1


def test_states_take_few_bytes_and_go_on_in_the_format_that_they_have() -> None:
    w, grads = tensors((80, 90), torch.bfloat16)
    formats = [(None, torch.float32), ("int8", torch.float32), ({"row_var": "int8"}, torch.float32)]
    for asked, expected in [*formats, ({"row_var": "bfloat16"}, torch.bfloat16)]:
        param = torch.nn.Parameter(w.clone())
        optimizer = Adafactor(state_dtype=asked).attach([param], audit=False)
        stepped(optimizer, param, grads[:3])
        assert optimizer.state[param]["row_var"].dtype == expected
        assert optimizer.state[param]["col_var"].dtype == torch.float32


def test_states_of_sixteen_bits_are_the_same_on_every_backend() -> None:
    found = []
    for backend in ("eager", "numba", "triton"):
        w, grads = tensors((9, 7), torch.bfloat16)
        param = torch.nn.Parameter(w)
        with use_backend(backend):
            theirs = torch.optim.Adafactor([param])
            stepped(theirs, param, grads[:2])
            ours = neon.torch.Adafactor([param])
            ours.load_state_dict(theirs.state_dict())
            stepped(ours, param, grads[2:6])
        assert ours.state[param]["row_var"].dtype == torch.bfloat16
        found.append([param.detach(), *ours.state[param].values()])
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_a_run_that_is_resumed_has_the_same_bits() -> None:
    w, grads = tensors((40, 30), torch.bfloat16)
    straight, halves = (torch.nn.Parameter(w.clone()) for _ in range(2))
    stepped(Adafactor(stochastic_round=True).attach([straight]), straight, grads)
    first = Adafactor(stochastic_round=True).attach([halves])
    stepped(first, halves, grads[:7])
    second = Adafactor(stochastic_round=True).attach([halves])
    second.load_state_dict(first.state_dict())
    stepped(second, halves, grads[7:])
    assert torch.equal(straight, halves)


def test_beside_another_rule_in_a_mapping() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    alone = torch.nn.Linear(4, 3)
    alone.load_state_dict(model[0].state_dict())
    both = MultiOptimizer({"default": Adafactor(), "1": Lion()}).attach(model)
    one = Adafactor().attach(alone)
    for _ in range(3):
        for layer in (*model, alone):
            for param in layer.parameters():
                param.grad = torch.full_like(param, 0.5)
        both.step()
        one.step()
    assert torch.equal(model[0].weight, alone.weight)
    assert torch.equal(model[0].bias, alone.bias)
    assert [*both.state[model[0].weight]] == ["step", "row_var", "col_var"]
    assert [*both.state[model[0].bias]] == ["step", "variance"]
    assert [*both.state[model[1].weight]] == ["step", "exp_avg"]
