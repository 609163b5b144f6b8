"""An audit that fails ends no training, and says why to who asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import nn

import neon.audit.checks
import neon.audit.first_steps
from neon.audit.seen import LAST
from neon.optimizers import Adam, Cautious

pytestmark = pytest.mark.usefixtures("nothing_compiled")


@pytest.fixture(autouse=True)
def no_look_fails() -> None:
    """Here looks are to fail."""


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.unused = nn.Linear(8, 4), nn.Linear(8, 3)

    def forward(self, x: Any) -> torch.Tensor:
        x = x["x"] if isinstance(x, Mapping) else x
        self.unused(x)
        return self.layer(x)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, wrap: Any = lambda x: x) -> None:
    for _ in range(steps):
        model.zero_grad()
        model(wrap(torch.randn(16, 8))).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize(
    ("look", "steps"),
    [("Before", LAST - 1), ("look_at_norms", 0), ("Detached", LAST - 2), ("look_at_values", 0), ("findings", 0)],
)
def test_a_look_that_fails_is_the_last(look: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_args: Any) -> Any:
        raise RuntimeError("no such luck")

    model = Encoder()
    optimizer = Adam().attach(model)
    train(model, optimizer, steps)
    assert optimizer._first_steps is not None
    monkeypatch.setattr(neon.audit.first_steps, look, failing)
    train(model, optimizer, 2)
    assert optimizer._first_steps is None
    assert optimizer.state[model.layer.weight]["step"] == steps + 2
    assert any("(RuntimeError: no such luck)" in note for note in optimizer.audit().notes)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_who_asks_is_told_of_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_args: Any) -> Any:
        raise RuntimeError("no such luck")

    optimizer = Adam().attach(Encoder())
    monkeypatch.setattr(neon.audit.checks, "findings", failing)
    with pytest.raises(RuntimeError, match="no such luck"):
        optimizer.audit()


class Lazy(Mapping[str, Any]):
    """Values that are there by name alone."""

    def __init__(self, x: torch.Tensor) -> None:
        self.x = x

    def __getitem__(self, name: str) -> Any:
        return {"x": self.x}[name]

    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError("ask by name")

    def __len__(self) -> int:
        return 1


def test_inputs_that_cannot_be_looked_through() -> None:
    model = Encoder()
    optimizer = Adam().attach(model)
    train(model, optimizer, LAST + 1, Lazy)
    assert optimizer._first_steps is None
    assert not any("failed" in note for note in optimizer.audit().notes)


def test_a_default_device_is_for_what_the_model_makes() -> None:
    model = Encoder().bfloat16()
    optimizer = Cautious(Adam(learning_rate=0.1, gradient_clip_value=1e9)).attach(model)
    inputs = torch.randn(16, 8, dtype=torch.bfloat16)
    with torch.device("meta"):
        train(model, optimizer, LAST, lambda _x: inputs)
    assert optimizer._first_steps is None
    assert not any("failed" in note for note in optimizer.audit().notes)


def test_a_model_that_is_compiled_while_hooks_are_on_it_breaks_no_graph() -> None:
    model = Encoder()
    optimizer = Adam().attach(model)
    train(model, optimizer, LAST - 1)
    assert model.unused._forward_hooks
    train(torch.compile(model, backend="eager", fullgraph=True), optimizer, 2)
    assert optimizer._first_steps is None
