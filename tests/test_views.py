"""What weights are at evaluation: shown by eval() and evaluating(), hidden by train(), to the bit, in every format."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from rule_cases import PlainLayer
from torch import Tensor, nn
from torch.optim import swa_utils

from neon.engine import use_backend
from neon.optimizers import WEIGHT, Adam, GradientDescentMomentum, MultiOptimizer, Optimizer, State
from neon.stepping.in_place import Mark

pytestmark = pytest.mark.usefixtures("one_thread")


class Between(Optimizer):
    """z goes down the gradient, the weight follows it; at evaluation it is on the other side."""

    @staticmethod
    def rule(w, g, z=State(WEIGHT), velocity=0.0, *, lr=0.1, betas=(0.75, 0.5)):  # type: ignore[no-untyped-def]
        velocity = betas[1] * velocity + g
        z = z - lr * velocity
        return w + 0.25 * (z - w), z, velocity

    @staticmethod
    def view(w, z, *, betas):  # type: ignore[no-untyped-def]
        return w + (1 - 1 / betas[0]) * (z - w)


def viewed(w: Tensor, z: Tensor, beta: float = 0.75) -> Tensor:
    """The same by hand, in the arithmetic of float32 or float64."""
    wide = np.float64 if w.dtype == torch.float64 else np.float32
    w, z = (t.detach().double().numpy().astype(wide) for t in (w, z))
    return torch.from_numpy(np.asarray(w + wide(1 - 1 / beta) * (z - w)))


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(70, 80), nn.Tanh(), nn.Linear(80, 3)).to(dtype)


def train(model: nn.Module, optimizer: Any, *steps: int) -> None:
    for step in steps or (0, 1, 2):
        optimizer.zero_grad()
        for number, param in enumerate(model.parameters()):
            grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(100 * step + number))
            (param * grad.to(param)).sum().backward()
        optimizer.step()


def contents(model: nn.Module, optimizer: Any) -> list[Tensor]:
    return [
        t.detach().clone()
        for p in model.parameters()
        for t in (p, *(s for s in optimizer.state[p].values() if isinstance(s, Tensor)))
    ]


def same(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether tensors are the same to the bit: low bits may look like NaN."""
    pairs = zip(found, expected, strict=True)
    return all(
        torch.equal(a.detach().view(-1).view(torch.uint8), b.detach().view(-1).view(torch.uint8)) for a, b in pairs
    )


KINDS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {}),
    "float64": (torch.float64, {}),
    "split": (torch.bfloat16, {"master": "split"}),
    "int8": (torch.float32, {"state_dtype": "int8"}),
    "bfloat16 z": (torch.float32, {"state_dtype": {"z": "bfloat16"}}),
}


@pytest.mark.parametrize("backend", ["numba", "eager", "triton"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_model_computes_with_the_view_and_goes_on_with_the_weights(kind: str, backend: str) -> None:
    dtype, options = KINDS[kind]
    with use_backend(backend):
        model = net(dtype)
        optimizer = Between(**options).attach(model)
        train(model, optimizer)
        before = contents(model, optimizer)
        whole = []
        for p in model.parameters():
            low = optimizer.state[p].get("low_bits")
            words = None if low is None else (p.detach().view(torch.int16).int() << 16) + low.view(torch.int16)
            whole.append(p.detach().clone() if words is None else words.view(torch.float32))
        optimizer.eval()
        for p, w in zip(model.parameters(), whole, strict=True):
            expected = viewed(w, optimizer.state[p]["z"])
            bound = (
                {"rtol": 2e-7, "atol": 1e-8}
                if backend == "triton" and dtype != torch.float64
                else {"rtol": 0, "atol": 0}
            )
            if kind == "split":  # of two that are as near, the larger
                expected = (expected.view(torch.int32) + 0x8000 >> 16 << 16).view(torch.float32)
            torch.testing.assert_close(p.detach(), expected.to(dtype), **bound)
            assert not torch.equal(p.detach().float(), w.float())
        optimizer.train()
    assert same(contents(model, optimizer), before)


@pytest.mark.parametrize("in_backward", [False, True])
def test_training_is_the_same_whoever_looked_meanwhile(in_backward: bool) -> None:
    model, other = net(), net()
    watched, alone = (Between().attach(m, in_backward=in_backward) for m in (model, other))
    for step in range(5):
        train(model, watched, step)
        train(other, alone, step)
        watched.eval()
        watched.train()
        with watched.evaluating():
            pass
    assert same(contents(model, watched), contents(other, alone))


def test_what_is_called_twice_or_within_does_nothing() -> None:
    model = net()
    optimizer = Between().attach(model)
    train(model, optimizer)
    before = contents(model, optimizer)
    optimizer.train()
    assert same(contents(model, optimizer), before)
    optimizer.eval()
    shown = contents(model, optimizer)
    optimizer.eval()
    for context in (optimizer.evaluating, optimizer.averaged):
        with context():
            assert same(contents(model, optimizer), shown)
        assert same(contents(model, optimizer), shown)
    optimizer.train()
    optimizer.train()
    assert same(contents(model, optimizer), before)
    with optimizer.evaluating():
        optimizer.eval()
        with optimizer.evaluating():
            assert same(contents(model, optimizer), shown)
        assert same(contents(model, optimizer), shown)
        with pytest.raises(RuntimeError, match=r"leave evaluating\(\) before"):
            optimizer.train()
    assert same(contents(model, optimizer), before)
    train(model, optimizer, 3)


def test_steps_and_loads_are_refused_until_train() -> None:
    model = net()
    optimizer = Between().attach(model)
    train(model, optimizer)
    before, saved = contents(model, optimizer), copy.deepcopy(optimizer.state_dict())
    optimizer.eval()
    for refused in (optimizer.step, lambda: optimizer.load_state_dict(saved)):
        with pytest.raises(RuntimeError, match=r"at evaluation stands in their place: call train\(\) before you go on"):
            refused()
    optimizer.train()
    assert same(contents(model, optimizer), before)
    train(model, optimizer, 3)


def test_a_closure_that_leaves_views_in_place_is_refused() -> None:
    model = net()
    optimizer = Between().attach(model)
    train(model, optimizer)
    before = contents(model, optimizer)
    with pytest.raises(RuntimeError, match="at evaluation stands in their place"):
        optimizer.step(optimizer.eval)
    optimizer.train()
    assert same(contents(model, optimizer), before)


@pytest.mark.parametrize("how", ["eval", "evaluating"])
def test_without_a_view_or_a_state_nothing_happens(how: str) -> None:
    for rule in (Adam(learning_rate=0.1), Between(), MultiOptimizer({"default": Adam(), "2": Between()})):
        model = net()
        optimizer = rule.attach(model)
        if isinstance(rule, Adam):
            train(model, optimizer)
        before = [p.detach().clone() for p in model.parameters()]
        if how == "eval":
            optimizer.eval()
            train(model, optimizer, 3)
            optimizer.train()
        else:
            with optimizer.evaluating():
                assert same([p.detach() for p in model.parameters()], before)
    with pytest.raises(RuntimeError, match=r"There is no average of weights"), Adam().attach(net()).averaged():
        pass


def test_in_a_mapping_each_layer_shows_its_own() -> None:
    model = nn.ModuleDict({name: nn.Linear(4, 3) for name in ("plain", "averaged", "between", "bold")})
    mapping = MultiOptimizer(
        {
            "default": Adam(learning_rate=0.1),
            "averaged": GradientDescentMomentum(0.1, 0.9, weight_average=0.75),
            "between": Between(),
            "bold": Between(betas=(0.25, 0.5)),
        }
    )
    optimizer = mapping.attach(model)
    train(model, optimizer)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer.eval()
    for name, p in model.named_parameters():
        state = optimizer.state[p]
        layer, expected = name.split(".")[0], before[name]
        if layer == "averaged":
            expected = state["weight_average"]
        elif layer != "plain":
            expected = viewed(before[name], state["z"], {"between": 0.75, "bold": 0.25}[layer])
        torch.testing.assert_close(p.detach(), expected, rtol=0, atol=0)
    optimizer.train()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_numbers_are_those_of_the_group_and_of_the_layer() -> None:
    model = net()
    optimizer = Between().attach(model)
    train(model, optimizer)
    optimizer.param_groups[0]["betas"] = (0.5, 0.5)
    optimizer.set("betas", (0.875, 0.5), layers="2")
    before = [p.detach().clone() for p in model.parameters()]
    with optimizer.evaluating():
        for number, (p, w) in enumerate(zip(model.parameters(), before, strict=True)):
            expected = viewed(w, optimizer.state[p]["z"], (0.5, 0.875)[number >= 2])
            torch.testing.assert_close(p.detach(), expected, rtol=0, atol=0)


def test_buffers_of_batch_norm_are_of_the_view() -> None:
    model = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8))
    optimizer = Between().attach(model)
    train(model, optimizer)
    data = [torch.randn(6, 5, generator=torch.Generator().manual_seed(step)) for step in range(4)]
    optimizer.eval()
    swa_utils.update_bn(data, model)
    means = torch.stack([model[0](batch).mean(0) for batch in data]).mean(0)
    torch.testing.assert_close(model[1].running_mean, means.detach(), rtol=1e-5, atol=1e-6)
    optimizer.train()
    assert not torch.allclose(
        model[1].running_mean, torch.stack([model[0](b).mean(0) for b in data]).mean(0), rtol=1e-3
    )


# -- saved there -----------------------------------------------------------------------------------


def through_files(model: nn.Module, optimizer: Any, make: Callable[[], Any]) -> tuple[nn.Module, Any]:
    file = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), file)
    file.seek(0)
    weights, states = torch.load(file, weights_only=True)
    fresh, resumed = make()
    fresh.load_state_dict(weights)
    resumed.load_state_dict(states)
    return fresh, resumed


WAYS: dict[str, Callable[..., tuple[nn.Module, Any]]] = {
    "files": through_files,
    "pickle": lambda model, optimizer, _: pickle.loads(pickle.dumps((model, optimizer))),
    "deepcopy": lambda model, optimizer, _: copy.deepcopy((model, optimizer)),
}


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_of_any_moment_goes_on_with_the_weights(kind: str, way: str, mode: str) -> None:
    dtype, options = KINDS[kind]

    def make() -> tuple[nn.Module, Any]:
        model = net(dtype)
        return model, Between(**options).attach(model)

    model, optimizer = make()
    train(model, optimizer)
    before = contents(model, optimizer)
    getattr(optimizer, mode)()
    fresh, resumed = WAYS[way](model, optimizer, make)
    assert same(contents(fresh, resumed), before)
    optimizer.train()
    for each in ((model, optimizer), (fresh, resumed)):
        train(*each, 3, 4)
    assert same(contents(fresh, resumed), contents(model, optimizer))


def test_the_model_has_the_view_and_must_be_loaded_first() -> None:
    model = net()
    optimizer = Between().attach(model)
    train(model, optimizer)
    before = [p.detach().clone() for p in model.parameters()]
    optimizer.eval()
    weights, states = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    for p, w, saved in zip(model.parameters(), before, weights.values(), strict=True):
        torch.testing.assert_close(saved, viewed(w, optimizer.state[p]["z"]), rtol=0, atol=0)
    fresh = net()
    resumed = Between().attach(fresh)
    resumed.load_state_dict(states)
    fresh.load_state_dict(weights)
    for refused in (resumed.step, resumed.state_dict, resumed.eval):
        with pytest.raises(RuntimeError, match=r"Load the model first, then the optimizer\."):
            refused()
    resumed.load_state_dict(states)
    assert same([p.detach() for p in fresh.parameters()], before)
    train(fresh, resumed, 3)


def test_what_is_loaded_into_the_model_meanwhile_is_not_undone_without_a_word() -> None:
    model = net()
    optimizer = Between().attach(model)
    train(model, optimizer)
    before = contents(model, optimizer)
    optimizer.eval()
    with torch.no_grad():
        model[0].weight[0, 0] += 1
    with pytest.raises(RuntimeError, match=r"Within eval\(\) 1 of 4 parameters were written to\. .* outside of eval"):
        optimizer.train()
    assert same(contents(model, optimizer), before)
    optimizer.train()
    train(model, optimizer, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_mark_tells_whether_a_tensor_was_written_to(dtype: torch.dtype) -> None:
    line = torch.randn(67).to(dtype)
    tensors = [line, line[1:], line[3:60].view(19, 3).t(), line[:1], line[:1].expand(1), line[5], line[:0]]
    for tensor in tensors:
        mark = Mark(tensor)
        assert mark.fits(tensor) is mark.fits(tensor.clone()) is mark.fits(tensor.double()) is True
        assert dtype == torch.bfloat16 or mark.fits(tensor.half()) is None  # it holds less
        assert mark.fits(tensor[None]) is False
        if tensor.numel():
            written = tensor.clone()
            written[(-1,) * written.dim()] += 1
            assert mark.fits(written) is False


# -- layer lists -----------------------------------------------------------------------------------


def test_layer_lists_show_their_views_too() -> None:
    model, other = net(), net()
    layer, optimizer, attached = PlainLayer([*model.parameters()]), Between(master="split"), Between().attach(other)
    for step in range(3):
        for number, pair in enumerate(zip(model.parameters(), other.parameters(), strict=True)):
            for p in pair:
                p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(100 * step + number))
        optimizer.optimize([layer], 0)
        attached.step()
    before = [p.detach().clone() for p in model.parameters()]
    attached.eval()
    for context in (optimizer.evaluating, optimizer.averaged):
        with context([layer]):
            assert same([p.detach() for p in model.parameters()], [p.detach() for p in other.parameters()])
            with pytest.raises(RuntimeError, match=rf"leave {context.__name__}\(\) before"):
                optimizer.optimize([layer], 0)
            with optimizer.evaluating([layer]):
                pass
            assert same([p.detach() for p in model.parameters()], [p.detach() for p in other.parameters()])
        assert same([p.detach() for p in model.parameters()], before)
    with Adam().evaluating([layer]):
        assert same([p.detach() for p in model.parameters()], before)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_too_few_where_the_view_is_of_the_weight(dtype: torch.dtype) -> None:
    weight = nn.Parameter(torch.ones(4, dtype=dtype))
    layer = PlainLayer([weight])
    weight.grad = torch.ones_like(weight)
    for step in (Between().attach([weight]).step, lambda: Between().optimize([layer], 0)):
        with pytest.raises(TypeError, match=r"computed from it, and 16 bits are too few.*Use master='split'"):
            step()
    assert torch.equal(weight, torch.ones_like(weight))


def test_an_average_beside_another_view_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rule says itself what a weight is at evaluation, by view: leave weight_av"):
        Between(weight_average=0.9).attach(net())


VIEWS = {
    "no weight": lambda z: z,
    "another state": lambda w, q: q,
    "another number": lambda w, *, momentum: momentum * w,
    "everything": lambda w, *states: w,
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_takes_what_its_rule_has(view: str) -> None:
    kind = type("Wrong", (Between,), {"view": staticmethod(VIEWS[view])})
    with pytest.raises(
        TypeError, match=r"must take the weight first, then states of rule \(z, velocity\), then numbers"
    ):
        kind().attach(net())
    no_number = type("Wrong", (Between,), {"view": staticmethod(lambda w: "x")})
    with pytest.raises(TypeError, match=r"must return an expression for the weight; it returned 'x', a str"):
        no_number().attach(net())


def test_a_step_of_another_optimizer_is_refused_while_views_are_in_place() -> None:
    model = nn.Linear(3, 2)
    averaging, other = Adam(weight_average=0.9).attach(model), Adam().attach(model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    averaging.step()
    averaging.eval()
    with pytest.raises(RuntimeError, match="What the weights are at evaluation stands in their place"):
        other.step()
    averaging.train()
    other.step()
