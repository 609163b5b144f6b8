"""What a steady step must not miss: changes that come together, and what is said outside of the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from steady_runs import taken, without
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import neon.torch
from neon.engine import steady
from neon.engine.backends import use_backend
from neon.engine.native import machine_code
from neon.optimizers import Adam

Change = Callable[[nn.Parameter], Any]


def _strided(param: nn.Parameter) -> None:
    param.grad = torch.ones(2, 3).t()


def _weight_itself(param: nn.Parameter) -> None:
    param.grad = param.detach()


@pytest.mark.parametrize("change", [_strided, _weight_itself])
def test_a_new_rate_beside_another_gradient_is_taken(change: Change, monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> tuple[list[float], int]:
        param = nn.Parameter(torch.ones(3, 2))
        optimizer = neon.torch.SGD([param], lr=0.1)
        before = 0
        for number in range(8):
            param.grad = torch.ones(3, 2)
            if number == 6:
                before = taken(optimizer)
                change(param)
            optimizer.param_groups[0]["lr"] = 0.1 * (1 + number)
            optimizer.step()
        return param.flatten().tolist(), before

    found, before = run()
    assert before > 0
    without(monkeypatch)
    assert found == run()[0]


def test_new_rates_are_taken_beside_an_empty_parameter() -> None:
    params = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(0))]
    optimizer = neon.torch.SGD(params, lr=0.25)
    for number in range(6):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.param_groups[0]["lr"] = 0.25 * (1 + number)
        optimizer.step()
    assert params[0].tolist() == [1.0 - 0.25 * 21] * 3


def test_another_backend_is_gone_over_to_in_mid_run() -> None:
    param = nn.Parameter(torch.ones(3))
    optimizer = Adam().attach([param])
    param.grad = torch.ones(3)

    def served() -> str | None:
        optimizer.step()
        plan = optimizer._stepper._plan
        assert plan is not None
        return plan._backend

    assert [served() for _ in range(4)] == [None] * 4
    assert taken(optimizer) == 2
    with use_backend("eager"):
        assert served() == "eager"
    assert served() is None
    with use_backend("".join(["num", "ba"])):
        assert [served() for _ in range(4)] == ["numba"] * 4
        assert taken(optimizer) == 2
    assert served() is None


class Doubled(nn.Parameter):
    """Says by itself what its gradient is."""

    @property
    def grad(self) -> Any:
        found = Tensor.grad.__get__(self)  # type: ignore[attr-defined]
        return None if found is None else 2.0 * found

    @grad.setter
    def grad(self, value: Any) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        Tensor.grad.__set__(self, value)  # type: ignore[attr-defined]


def test_a_parameter_that_says_itself_what_its_gradient_is_is_asked() -> None:
    param = Doubled(torch.zeros(3))
    optimizer = neon.torch.SGD([param], lr=0.25)
    for _ in range(6):
        param.grad = torch.ones(3)
        optimizer.step()
    assert param.tolist() == [-3.0] * 3


class Refusing(TorchDispatchMode):
    """Refuses every operation of torch's."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise ValueError(function)


@pytest.mark.parametrize("mode", [torch.inference_mode, Refusing, FakeTensorMode])
def test_the_first_steady_step_of_a_process_may_be_within_a_mode(mode: Callable[[], Any]) -> None:
    param = nn.Parameter(torch.zeros(3))
    optimizer = neon.torch.SGD([param], lr=0.25)
    param.grad = torch.ones(3)
    optimizer.step()
    steady._native.cache_clear()
    with mode():
        for _ in range(4):
            optimizer.step()
    assert param.tolist() == [-1.25] * 3
    assert taken(optimizer) == 3


def test_no_steady_step_is_made_for_gradients_that_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neon.stepping.steady_steps.steady", lambda *given: pytest.fail("made"))
    params = [nn.Parameter(torch.zeros(3)) for _ in range(3)]
    optimizer = Adam().attach(params)
    for number in range(6):
        for param in params:
            param.grad = torch.ones(3)
        params[number % 2].grad = None
        optimizer.step()
    assert [optimizer.state[param]["step"].item() for param in params] == [3, 3, 6]


def test_where_the_steady_step_cannot_be_linked_the_plan_makes_every_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(image: bytes, stages: int) -> Any:
        raise RuntimeError("symbols are missing")

    monkeypatch.setenv("NEON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(machine_code, "link", refuse)
    steady._native.cache_clear()
    try:
        param = nn.Parameter(torch.zeros(3))
        optimizer = neon.torch.SGD([param], lr=0.25)
        for _ in range(5):
            param.grad = torch.ones(3)
            optimizer.step()
        assert param.tolist() == [-1.25] * 3
        assert taken(optimizer) == 0
    finally:
        steady._native.cache_clear()


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_a_number_within_a_tuple_that_is_changed_in_place_is_taken(kind: Any) -> None:
    def run(*, in_place: bool) -> list[float]:
        param = nn.Parameter(torch.zeros(3))
        optimizer = Adam().attach([param])
        group = optimizer.param_groups[0]
        beta = kind(0.5)
        for number in range(9):
            param.grad = torch.full((3,), 1.0 + number)
            if number in (3, 4):
                group["betas"] = (0.5 + number / 10, 0.99)
            elif number > 4:
                beta[...] = 0.5 + number / 100
                if number == 5 or not in_place:
                    group["betas"] = (beta if in_place else float(beta), 0.99)
            optimizer.step()
        return param.tolist()

    assert run(in_place=True) == run(in_place=False)


@pytest.mark.parametrize("written", ["params", "overrides"])
def test_what_is_written_to_a_group_that_has_taken_no_part_is_not_missed(written: str) -> None:
    params = [nn.Parameter(torch.zeros(3)) for _ in range(2)]
    first, second = params if written == "params" else [("first", params[0]), ("second", params[1])]
    groups = [{"params": [first]}, {"params": [] if written == "params" else [second]}]
    optimizer = neon.torch.SGD(groups, lr=0.25)
    if written == "overrides":
        optimizer.freeze("second")
    for param in params:
        param.grad = torch.ones(3)
    for number in range(8):
        if number == 5:
            optimizer.param_groups[1][written] = {"params": [second], "overrides": "{}"}[written]
        optimizer.step()
    assert [param[0].item() for param in params] == [-2.0, -0.75]
