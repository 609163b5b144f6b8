"""numpy's numbers, wherever they enter: what is kept, saved and shown is Python's."""

# pyright: reportArgumentType=false
# numpy's flags and whole numbers are none of Python's to a type checker

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import neon.torch
from neon.arguments import plain
from neon.data import ArrayIterator
from neon.initializers import Constant
from neon.layers import Affine
from neon.models import Model
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Optimizer, PowerSchedule
from neon.transforms import SumSquared

KINDS: dict[str, Callable[[float], Any]] = {
    "float64": np.float64,
    "float32": np.float32,
    "float16": np.float16,
    "longdouble": np.longdouble,
    "array": np.array,
    "array of float32": lambda value: np.array(value, np.float32),
}


HALF = np.float32(0.5)


class Mine(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any = 0.1, pair: Any = (0.5, 0.5), upside_down: Any = False) -> Any:
        return w + lr * pair[0] * g if upside_down else w - lr * pair[0] * g


class WithDefaults(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any = HALF, flag: Any = np.True_) -> Any:
        return w - lr * g if flag else w


def is_python(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(is_python, value))
    if isinstance(value, dict):
        return all(map(is_python, value.values()))
    return value is None or type(value) in (bool, int, float, str) or isinstance(value, torch.Tensor)


def stepped(optimizer: Any) -> Any:
    """The optimizer after a step, once what it saves has come back from a file, and gone through JSON."""
    for p in optimizer.param_groups[0]["params"]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    saved = optimizer.state_dict()
    torch.save(saved, file := io.BytesIO())
    loaded = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    assert is_python(loaded["param_groups"])
    json.dumps(loaded["param_groups"])
    optimizer.load_state_dict(loaded)
    assert is_python([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups])
    return optimizer


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float64(0.1), 0.1),
        (np.longdouble(0.5), 0.5),
        (np.int64(3), 3),
        (np.uint8(3), 3),
        (np.bool_(True), True),
        (np.array(0.5), 0.5),
        (np.array(3), 3),
        (np.array([1, 2]), [1, 2]),
        ((np.float64(0.5), 1), (0.5, 1)),
        ([np.int32(1)], [1]),
        (np.str_("adam"), "adam"),
    ],
)
def test_what_becomes_of_a_number(given: Any, expected: Any) -> None:
    found = plain(given)
    assert found == expected
    assert type(found) is type(expected)
    assert is_python(found)


def test_what_is_no_number_stays() -> None:
    matrix, tensor, pair = np.ones((2, 2)), torch.ones(()), (1, 0.5)
    assert plain(matrix) is matrix
    assert plain(tensor) is tensor
    assert plain(pair) is pair


@pytest.mark.parametrize("kind", KINDS)
def test_in_constructors(kind: str) -> None:
    half = KINDS[kind](0.5)
    for made in (
        Adam(learning_rate=half, beta_1=half, wdecay=half, gradient_clip_norm=half, weight_average=half),
        GradientDescentMomentum(half, half, nesterov=np.True_),
        Mine(lr=half, pair=(half, half), upside_down=np.bool_(True)),
        MultiOptimizer({"default": Adam(learning_rate=half)}, gradient_clip_norm=half),
        Adam(learning_rate=half, seed=np.int64(3), stochastic_round=np.int64(8), maximize=np.bool_(False)),
    ):
        for leaf, _ in made.leaves().values():
            assert is_python(leaf.group())
            assert leaf.group()["lr"] == 0.5
        assert "np." not in repr(made)
        stepped(made.attach([nn.Parameter(torch.ones(2))]))


@pytest.mark.parametrize("kind", KINDS)
def test_in_constructors_of_drop_ins(kind: str) -> None:
    half = KINDS[kind](0.5)
    params = [nn.Parameter(torch.ones(2))]
    for made in (
        neon.torch.SGD(params, half, momentum=half, dampening=half),
        neon.torch.AdamW(params, half, betas=(half, half), eps=half, amsgrad=np.bool_(True)),
        neon.torch.Lion(params, half, betas=np.array([0.5, 0.5]), gradient_clip_value=half),
    ):
        assert is_python(made.defaults)
        assert stepped(made).param_groups[0]["lr"] == 0.5


def test_in_rules_of_ones_own() -> None:
    whole = Mine(lr=np.int64(1)).hyperparameters()["lr"]
    assert (whole, type(whole)) == (1, int)
    assert is_python(WithDefaults().hyperparameters())
    p = nn.Parameter(torch.ones(2))
    stepped(WithDefaults().attach([p]))
    assert p.tolist() == [0.5, 0.5]
    stepped(Mine(lr=1.0, upside_down=np.bool_(True)).attach([p]))
    assert p.tolist() == [1.0, 1.0]
    with pytest.raises(
        TypeError, match=r"^lr must be a number, as its default 0\.1 is\. Received: lr=<ndarray of shape \(9,\)>"
    ):
        Mine(lr=np.zeros(9))


@pytest.mark.parametrize("kind", KINDS)
def test_in_groups(kind: str) -> None:
    half = KINDS[kind](0.5)
    p, q = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = Adam(gradient_clip_norm=1.0).attach([{"params": [p], "lr": half, "betas": (half, half)}])
    optimizer.add_param_group({"params": [q], "weight_decay": half})
    assert is_python([optimizer.param_groups[0][name] for name in ("lr", "betas")])
    stepped(optimizer)
    for written in optimizer.param_groups:  # as schedulers of others do
        written["lr"], written["betas"], written["maximize"] = half, (half, half), np.bool_(True)
    before = p.tolist()
    assert stepped(optimizer).param_groups[0]["lr"] == 0.5
    assert p.tolist() > before


@pytest.mark.parametrize("kind", KINDS)
def test_in_set(kind: str) -> None:
    half = KINDS[kind](0.5)
    optimizer = Adam().attach(nn.Linear(2, 2))
    optimizer.set("lr", half)
    optimizer.set("weight_decay", half, layers="weight")
    optimizer.set("betas", (half, half), layers="bias")
    assert is_python(optimizer.param_groups[0]["lr"])
    assert json.loads(optimizer.param_groups[0]["overrides"])["bias"] == {"betas": [0.5, 0.5]}
    stepped(optimizer)


def test_a_flag_in_a_group() -> None:
    moved = []
    for nesterov in (True, np.bool_(True), False, np.bool_(False)):
        p = nn.Parameter(torch.ones(2))
        optimizer = neon.torch.SGD([p], 0.1, momentum=0.5)
        optimizer.param_groups[0]["nesterov"] = nesterov
        stepped(optimizer)
        moved.append(p.tolist())
    assert moved[0] == moved[1] != moved[2] == moved[3]


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32, np.array])
def test_in_epochs(kind: Any) -> None:
    halved = Adam(learning_rate=1.0, schedule=PowerSchedule(2, 0.5))
    optimizer = halved.attach(nn.Linear(2, 2))
    for epoch in range(4):
        optimizer.set_epoch(kind(epoch))
        group = optimizer.param_groups[0]
        assert (group["lr"], group["epoch"]) == (0.5 ** (epoch // 2), epoch)
        assert is_python([group["lr"], group["epoch"]])
    stepped(optimizer)
    seen: list[Any] = []

    class ByHand(Optimizer):
        def optimize(self, layer_list: Any, epoch: int) -> None:
            seen.append(epoch)

    layer = nn.Linear(2, 2)
    layer(torch.ones(1, 2)).sum().backward()
    MultiOptimizer({"default": halved, "Bias": ByHand()}).optimize([layer], kind(2))
    assert is_python(seen)
    assert seen == [2]


def test_in_models_and_data() -> None:
    data = ArrayIterator(np.zeros((4, 2), np.float32), np.zeros(4, np.int64), batch_size=np.int64(2))
    model = Model([Affine(np.int64(1), Constant(0.5))])
    assert len(model.fit(data, SumSquared(), Adam(), np.int64(2))) == 2
    assert type(model.epoch) is int
    assert type(data.batch_size) is int


def test_what_a_schedule_of_ones_own_returns() -> None:
    class Quarter:
        def get_learning_rate(self, learning_rate: float, epoch: float) -> Any:
            return np.float64(learning_rate) / 4

    optimizer = Adam(learning_rate=1.0, schedule=Quarter()).attach(nn.Linear(2, 2))
    assert type(optimizer.param_groups[0]["lr"]) is float
    assert stepped(optimizer).param_groups[0]["lr"] == 0.25
