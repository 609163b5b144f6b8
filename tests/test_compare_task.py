"""What a comparison is given: tasks, settings, a directory; each refused with its reason."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch
from small_tasks import train
from torch import nn

from neon.compare import (
    MissingExtraError,
    OutputError,
    Settings,
    SettingsError,
    SpecError,
    Task,
    TaskError,
    digits,
    load_task,
)


def test_digits_are_split_by_class() -> None:
    task = digits()
    assert task.train[0].shape == (1442, 1, 8, 8)
    assert task.validation[0].shape == (355, 1, 8, 8)
    shares = [labels.bincount() / len(labels) for labels in (task.train[1], task.validation[1])]
    assert (shares[0] - shares[1]).abs().max() < 0.002
    assert task.train[0].min() == 0.0
    assert task.train[0].max() == 1.0


def test_digits_without_scikit_learn_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r'pip install "neon-optimizers\[compare\]"'):
        digits()


PAIR = (torch.zeros(4, 2), torch.zeros(4).long())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": nn.Linear(2, 2)}, "Write model=lambda: Linear"),
        ({"model": 3}, r"Task.model must be a function .* received 3 \(int\)"),
        ({"train": PAIR[0]}, r"Task.train must be a pair of tensors .* a tensor of shape \(4, 2\)"),
        ({"validation": (1, 2)}, r"Task.validation must be a pair .* tuple of 2 \(int, int\)"),
        ({"train": (PAIR[0], PAIR[1][:3])}, r"as many inputs as targets.*\(4, 2\) and \(3,\)"),
        ({"train": (PAIR[0][:0], PAIR[1][:0])}, "Task.train holds no samples"),
        ({"loss": "mse"}, r"Task.loss must be a function .* received 'mse' \(str\)"),
        ({"accuracy": 0.5}, "Task.accuracy must be a function"),
    ],
)
def test_a_wrong_task_is_refused(change: dict, message: str) -> None:
    parts = {"model": lambda: nn.Linear(2, 2), "train": PAIR, "validation": PAIR} | change
    with pytest.raises(TaskError, match=message):
        Task(**parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": lambda: 3}, r"must return a torch.nn.Module; received 3 \(int\)"),
        ({"model": nn.ReLU}, "ReLU without trainable parameters"),
        (
            {"model": lambda: 1 / 0},
            r"Task.model\(\) failed: ZeroDivisionError.*test_compare_task.py, l",
        ),
        ({"model": lambda: nn.Linear(3, 2)}, "the model's forward pass failed: RuntimeError"),
        ({"loss": lambda x, _: x}, r"one element.* received a tensor of shape \(4, 2\)"),
        ({"loss": lambda x, _: x.sum() * float("nan")}, "the initial weights is nan"),
        ({"accuracy": lambda *_: 12.0}, r"a number from 0 to 1; received 12.0 \(float\)"),
        ({"accuracy": lambda *_: "high"}, "a number from 0 to 1; received 'high'"),
        ({"model": lambda: nn.Linear(2, 1), "loss": lambda x, _: x.sum()}, None),
        (
            {"train": (PAIR[0], PAIR[0]), "loss": nn.functional.mse_loss},
            r"received outputs \(4, 2\) and targets \(4, 2\). Give Task\(accuracy=...\)",
        ),
    ],
)
def test_a_task_that_cannot_be_trained_is_refused_before_training(
    tmp_path: Path, change: dict, message: str | None
) -> None:
    parts = {"model": lambda: nn.Linear(2, 2), "train": PAIR, "validation": PAIR} | change
    if message is None:
        train(tmp_path, "Adam()", task=Task(**parts), epochs=1)
        return
    with pytest.raises(TaskError, match=message):
        train(tmp_path / "new", "Adam()", task=Task(**parts))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("mytask", "expected module:name.*received 'mytask'"),
        ("tasks/mine.py:make", r"written with dots and without .py: tasks.mine\."),
        ("absent_module:make", "cannot import 'absent_module': ModuleNotFoundError"),
        ("bad_tasks:mak", "has no 'mak'. Did you mean 'make'"),
        ("bad_tasks:number", r"must be a function .*; received 3 \(int\)"),
        ("bad_tasks:make", r"must return a neon.compare.Task; received 3 \(int\)"),
        ("bad_tasks:fails", r"fails\(\) failed: KeyError: 'x' \(bad_tasks.py, line 5\)"),
        ("bad_tasks:needs", r"needs\(\) failed: TypeError: .*missing 1 required"),
        ("bad_syntax:make", "cannot import 'bad_syntax': SyntaxError"),
        ("a_program:make", "'a_program' exits when it is imported. Have it do so under `if __name__ == '__main__':`"),
    ],
)
def test_a_task_that_cannot_be_found_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, message: str
) -> None:
    (tmp_path / "bad_tasks.py").write_text(
        "number = 3\ndef make():\n    return 3\ndef fails():\n    return {}['x']\n"
        "def needs(argument):\n    return argument\n"
    )
    (tmp_path / "bad_syntax.py").write_text("def make(:\n")
    (tmp_path / "a_program.py").write_text("import sys\nsys.exit(1)\n")
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TaskError, match=message) as caught:
        load_task(reference)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("setting", ["epochs", "batch_size", "seed"])
@pytest.mark.parametrize("value", [-1, 1.5, "3", True, 2**63])
def test_a_wrong_setting_is_refused(setting: str, value: object) -> None:
    message = re.escape(f"{setting} must be a whole number")
    with pytest.raises(SettingsError, match=f"{message}.*received {re.escape(repr(value))}"):
        Settings(**{setting: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("optimizers", "message"),
    [
        (["Adam(learning_rate=1e-3)", "Adam(learning_rate=0.001)"], "is given 2 times"),
        ([], "there is no optimizer"),
        (
            ['MultiOptimizer({"default": Adam(), "Conv9d": Adam()})'],
            "does not fit the model: .*Conv9d",
        ),
    ],
)
def test_optimizers_that_do_not_fit_are_refused_before_training(
    tmp_path: Path, optimizers: list[str], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        train(tmp_path / "new", *optimizers)
    assert not (tmp_path / "new").exists()


def test_an_output_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write to the output directory .*--output"):
        train(tmp_path / "file", "Adam()")
