"""neon.compare trains: resumed runs end with the same bits, divergence is told."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from small_tasks import blobs, line, train, untimed
from torch import nn

from neon.attached.attached_optimizer import AttachedOptimizer
from neon.commands.compare.ranking import result_table
from neon.commands.output import require_writable
from neon.compare import Comparison, Result, Settings, Task, parse_optimizer
from neon.whole_files import write_atomically

pytestmark = pytest.mark.usefixtures("one_thread")

MULTI = 'MultiOptimizer({"default": Adam(), "Linear": GradientDescentMomentum(0.05, 0.9)})'


@pytest.mark.parametrize(
    "optimizer",
    [
        "Adam(learning_rate=0.01)",
        "GradientDescentMomentum(0.05, 0.9, nesterov=True, schedule=Schedule([1, 3], 0.5))",
        "ShiftAdaMax()",
        MULTI,
    ],
)
@pytest.mark.parametrize("stop_at", [0.5, 2.25, 3.75])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path, optimizer: str, stop_at: float) -> None:
    [whole] = train(tmp_path / "whole", optimizer)
    positions: list[float] = []

    def interrupt(_: Result, position: float) -> None:
        if position >= stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", optimizer, watch=interrupt)
    [resumed] = train(tmp_path / "parts", optimizer, watch=lambda _, position: positions.append(position))
    assert positions[0] == int(stop_at)
    assert untimed(resumed) == untimed(whole)
    assert whole.status == "finished"
    assert len(whole.weights_sha256) == 64
    assert list((tmp_path / "parts").rglob("*.pt")) == []


def test_every_moment_of_an_epochs_end_can_be_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [whole] = train(tmp_path / "whole", "Adam()")
    calls = 0

    def failing_replace(source: str, target: str, replace: Callable = os.replace):
        nonlocal calls
        calls += 1
        if calls == 4:  # the curves of the second epoch, whose checkpoint is there already
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr("neon.whole_files.os.replace", failing_replace)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "parts", "Adam()")
    assert sorted(path.suffix for path in (tmp_path / "parts/runs").iterdir()) == [".json", ".pt"]
    [resumed] = train(tmp_path / "parts", "Adam()")
    assert untimed(resumed) == untimed(whole)


def test_one_seed_one_result(tmp_path: Path) -> None:
    [first] = train(tmp_path / "a", "Adam()")
    for draw in (torch.rand, np.random.rand):
        draw(3)
    random.seed(1)
    [second] = train(tmp_path / "b", "Adam()")
    [other] = train(tmp_path / "c", "Adam()", seed=1)
    assert untimed(first) == untimed(second)
    assert other.train_loss != first.train_loss


def test_the_order_of_the_optimizers_changes_nothing(tmp_path: Path) -> None:
    adam, lion = train(tmp_path / "a", "Adam()", "Lion()")
    other_lion, other_adam = train(tmp_path / "b", "Lion()", "Adam()")
    assert untimed(adam) == untimed(other_adam)
    assert untimed(lion) == untimed(other_lion)


def test_the_callers_random_numbers_are_left_alone(tmp_path: Path) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    train(tmp_path, "Adam()", epochs=1)
    assert torch.equal(torch.rand(4), expected)


def test_a_finished_optimizer_is_not_trained_again(tmp_path: Path) -> None:
    [first] = train(tmp_path, "Adam()")
    positions: list[float] = []
    results = train(tmp_path, "Adam( )", "Lion()", watch=lambda _, position: positions.append(position))
    assert results[0] == first
    assert positions[0] == 4
    assert positions[1] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 3},
        {"seed": 1},
        {"task": replace(blobs(), name="clouds")},
        {"task": replace(blobs(), train=tuple(part[:50] for part in blobs().train))},
        {"task": replace(blobs(), model=lambda: nn.Linear(4, 3))},
        {"task": replace(blobs(), loss=lambda x, y: 2 * nn.functional.cross_entropy(x, y))},
    ],
    ids=["epochs", "seed", "name", "data", "model", "loss"],
)
def test_a_changed_configuration_is_trained_anew(tmp_path: Path, change: dict) -> None:
    positions: list[float] = []
    train(tmp_path, "Adam()")
    train(tmp_path, "Adam()", watch=lambda _, position: positions.append(position), **change)
    assert positions[0] == 0
    assert len(list((tmp_path / "runs").glob("*.json"))) == 2


def test_a_changed_batch_size_is_trained_anew(tmp_path: Path) -> None:
    train(tmp_path, "Adam()")
    specs = [parse_optimizer("Adam()")]
    other = Comparison(blobs(), specs, Settings(epochs=4, batch_size=8), tmp_path)
    assert other.stored() == {}


@pytest.mark.parametrize("suffix", [".pt", ".json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\x80\x02garbage", b'{"config": 1}'])
def test_a_damaged_file_is_trained_anew(tmp_path: Path, suffix: str, content: bytes) -> None:
    [whole] = train(tmp_path, "Adam()")
    [curves] = (tmp_path / "runs").glob("*.json")
    if suffix == ".pt":
        curves.unlink()
    curves.with_suffix(suffix).write_bytes(content)
    with pytest.warns(RuntimeWarning, match="cannot resume") if suffix == ".pt" else nullcontext():
        [again] = train(tmp_path, "Adam()")
    assert untimed(again) == untimed(whole)


def test_a_failed_write_leaves_the_previous_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    path.write_text("before")

    def fail(file) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("kept.json", "before")]


def test_what_a_killed_process_has_left_is_cleared(tmp_path: Path) -> None:
    """When the same file is written again, or the folder is used again; not what somebody may still be writing."""
    names = ("kept.json", "kept.json", "other.pt")
    old, new, other = (tmp_path / f".{name}.{place}.unfinished" for place, name in enumerate(names))
    for path in (old, new, other):
        path.write_text("half")
    for path in (old, other):
        os.utime(path, (time.time() - 3600,) * 2)
    write_atomically(tmp_path / "kept.json", lambda file: file.write(b"whole"))
    assert {*tmp_path.iterdir()} == {tmp_path / "kept.json", new, other}
    require_writable(tmp_path)
    assert {*tmp_path.iterdir()} == {tmp_path / "kept.json", new}


@pytest.mark.parametrize(
    ("optimizer", "task"),
    [
        ("GradientDescentMomentum(1e6, 0.9)", line(2.0)),
        ("GradientDescentMomentum(1e6, 0.9)", blobs()),
    ],
    ids=["infinite loss", "finite but exploded"],
)
def test_divergence_is_reported_and_the_others_go_on(tmp_path: Path, optimizer: str, task: Task) -> None:
    lost, fine = train(tmp_path, optimizer, "GradientDescentMomentum(0.1, 0.9)", task=task)
    assert re.fullmatch(r"diverged at epoch [1-4]", lost.status)
    assert lost.diverged
    assert lost.epochs < 4
    assert (fine.status, fine.epochs) == ("finished", 4)
    [again, _] = train(tmp_path, optimizer, "GradientDescentMomentum(0.1, 0.9)", task=task)
    assert again == lost
    table = Console(width=120)
    with table.capture() as shown:
        table.print(result_table([lost, fine], 0.95, "title"))
    assert lost.status in shown.get()


def test_a_parameter_that_is_not_finite_is_divergence(tmp_path: Path) -> None:
    class Hidden(nn.Module):
        """Its second parameter gets an infinite gradient and never reaches the loss."""

        def __init__(self) -> None:
            super().__init__()
            self.line = nn.Linear(1, 1)
            self.unused = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.unused.grad = torch.full((1,), float("nan"))
            return self.line(x)

    task = replace(line(2.0), model=Hidden)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AttachedOptimizer, "zero_grad", lambda *_, **__: None)
        [result] = train(tmp_path, "GradientDescentMomentum(0.01, 0.0)", task=task)
    assert result.status == "diverged at epoch 1"


def test_a_stored_result_is_readable_json(tmp_path: Path) -> None:
    train(tmp_path, "Adam()", epochs=2)
    [path] = (tmp_path / "runs").glob("Adam-*.json")
    stored = json.loads(path.read_text())
    assert stored["config"]["optimizer"] == "Adam()"
    assert len(stored["result"]["accuracy"]) == 2
