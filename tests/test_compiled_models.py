"""`torch.compile`: compiled models train to the same bits; a step in a compiled function breaks its graph cleanly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.optim.lr_scheduler import ExponentialLR

from neon.optimizers import Adam, AdamW, GradientDescentMomentum, MultiOptimizer, Muon, Optimizer
from neon.torch import AttachedOptimizer

pytestmark = pytest.mark.usefixtures("one_thread", "fresh_compiler")


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Nothing compiled or counted by another test."""
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1))


def mapping(**more: Optimizer) -> MultiOptimizer:
    rules = {"default": AdamW(learning_rate=0.1), "Bias": GradientDescentMomentum(0.1, 0.9), **more}
    return MultiOptimizer(rules, gradient_clip_norm=0.5)


def batch(step: int) -> torch.Tensor:
    return torch.randn(8, 4, generator=torch.Generator().manual_seed(step))


def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return (model(x) - x.sum(1, keepdim=True)).square().mean()


@pytest.mark.parametrize("compiled_after", [False, True], ids=["attached to the compiled", "attached before"])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("more", [{}, {"HiddenMatrix": Muon(learning_rate=0.1)}], ids=["elements", "matrices"])
def test_a_compiled_model_trains_to_the_same_bits(
    more: dict[str, Optimizer], backend: str, compiled_after: bool
) -> None:
    plain, model = net(), net()
    compiled = torch.compile(model, backend=backend)
    rules = mapping(**more)
    runs = [(plain, rules.attach(plain)), (compiled, rules.attach(model if compiled_after else compiled))]
    for step in range(6):
        for trained, optimizer in runs:
            optimizer.zero_grad()
            loss_of(trained, batch(step)).backward()
            optimizer.step()
            optimizer.param_groups[0]["lr"] *= 0.9
    assert all(map(torch.equal, plain.parameters(), model.parameters()))
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


# What a user may compile, given a parameter, its optimizer, a scheduler and the number of the step.
Work = Callable[[nn.Parameter, AttachedOptimizer, Any, int], Any]


def with_a_closure(w: nn.Parameter, optimizer: AttachedOptimizer, scheduler: Any, step: int) -> Any:
    def closure() -> float:
        optimizer.zero_grad()
        w.square().sum().backward()
        return 1.5

    return optimizer.step(closure)


@torch.compiler.disable
def another() -> nn.Parameter:
    return nn.Parameter(torch.zeros(2))


def with_a_new_group(w: nn.Parameter, optimizer: AttachedOptimizer, scheduler: Any, step: int) -> None:
    optimizer.add_param_group({"params": [another()]})
    optimizer.step()


class Layer:
    """A layer of neon's, as far as `optimize` asks for one."""

    def __init__(self, w: nn.Parameter) -> None:
        self.entry: Any = ((w.detach(), w.grad), [])

    def get_params(self) -> Any:
        return self.entry


DESCRIPTION = Adam(learning_rate=0.1)
WORK: dict[str, Work] = {
    "step": lambda w, o, s, step: o.step(),
    "step and zero_grad": lambda w, o, s, step: (o.step(), o.zero_grad())[0],
    "zero_grad of zeros": lambda w, o, s, step: (o.step(), o.zero_grad(set_to_none=False))[0],
    "a scheduler": lambda w, o, s, step: (o.step(), s.step())[0],
    "a closure": with_a_closure,
    "set_epoch": lambda w, o, s, step: (o.set_epoch(step), o.step())[0],
    "a checkpoint": lambda w, o, s, step: (o.step(), o.load_state_dict(o.state_dict()))[0],
    "a new group": with_a_new_group,
    "attach": lambda w, o, s, step: DESCRIPTION.attach([w]).step(),
    "optimize": lambda w, o, s, step: DESCRIPTION.optimize([Layer(w)], 0),
}


@pytest.mark.parametrize("work", WORK)
def test_what_is_called_in_a_compiled_function_is_left_alone(work: str) -> None:
    """No warning, which is an error here; the result as without; nothing compiled anew as steps and rates go on."""
    function = WORK[work]
    runs = []
    for call in (function, torch.compile(function, backend="eager")):
        w = nn.Parameter(torch.ones(3))
        optimizer = AdamW(learning_rate=0.1).attach([w])
        runs.append((call, w, optimizer, ExponentialLR(optimizer, 0.5)))
    frames = []
    for step in range(6):
        results = []
        for call, w, optimizer, scheduler in runs:
            w.grad = torch.full((3,), step + 1.0)
            results.append(call(w, optimizer, scheduler, step))
            optimizer.param_groups[0]["lr"] *= 0.9
        assert results[0] == results[1]
        frames.append(counters["frames"]["total"])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(runs[0][1], torch.ones(3))
    reasons = list(counters["graph_break"])
    assert all("`torch.compiler.disable()`d function" in reason for reason in reasons)
    assert any("neon's steps are machine code already" in reason for reason in reasons)
    assert frames[1:] == frames[1:2] * 5
    assert frames[0] <= 3  # the function, and what is left of it after the break


def test_a_training_step_compiled_as_a_whole() -> None:
    def train(model: nn.Module, optimizer: AttachedOptimizer, x: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()

    models, frames = [], []
    for call in (train, torch.compile(train, backend="eager")):
        model = net()
        optimizer = mapping().attach(model)
        for step in range(6):
            call(model, optimizer, batch(step))
            frames.append(counters["frames"]["total"])
        models.append(model)
    assert frames == [0] * 6 + [frames[-1]] * 6
    assert 0 < frames[-1] < 12  # 3 are of the function; torch's logging is compiled too
    assert all(map(torch.equal, models[0].parameters(), models[1].parameters()))


def test_a_model_compiled_within_a_closure_is_compiled() -> None:
    """The step is left alone, not what the closure compiles."""
    model = net()
    compiled = torch.compile(model, backend="eager")
    optimizer = mapping().attach(model)
    torch.compile(lambda: optimizer.step(lambda: loss_of(compiled, batch(0)).backward()), backend="eager")()
    assert counters["stats"]["unique_graphs"] == 1


def test_a_whole_graph_around_a_step_is_refused_by_name() -> None:
    w = nn.Parameter(torch.ones(3))
    w.grad = torch.ones(3)
    optimizer = AdamW().attach([w])
    with pytest.raises(RuntimeError, match=r"AttachedOptimizer\.step.*machine code already"):
        torch.compile(lambda: optimizer.step(), backend="eager", fullgraph=True)()
    assert torch.equal(w, torch.ones(3))
    assert not optimizer.state
