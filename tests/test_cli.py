"""The command: its exit codes, what it prints, and what it leaves behind."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import neon
from neon import optimizers
from neon.cli import app
from neon.compare import parse_optimizer

pytestmark = pytest.mark.usefixtures("one_thread")

TASK = """
import os
import signal

import torch
from torch import nn

from neon.compare import Task

steps = 0


def loss(outputs, targets):
    global steps
    steps += outputs.requires_grad
    if steps == int(os.environ.get("INTERRUPT_AT_STEP", -1)):
        signal.raise_signal(signal.SIGINT)
    return nn.functional.cross_entropy(outputs, targets)


def make():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % 2
    points = torch.randn(60, 2, generator=generator) + 3.0 * labels.unsqueeze(1)
    return Task(
        model=lambda: nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2)),
        train=(points[:40], labels[:40]),
        validation=(points[40:], labels[40:]),
        loss=loss,
        name="two clouds",
    )
"""
STEPS_OF_AN_EPOCH = 3


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a task of the user's own, freshly imported by each test."""
    (tmp_path / "clouds.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "clouds", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def neon_command(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


def compare(*arguments: str, optimizers: tuple[str, ...] = ("Adam()", "Lion()")) -> Result:
    chosen = [part for text in optimizers for part in ("--optimizer", text)]
    settings = ["--task", "clouds:make", "--epochs", "4", "--batch-size", "16"]
    return neon_command("compare", *settings, *chosen, *arguments)


def curves(directory: Path) -> list[dict]:
    """The stored results without their times, which differ between runs."""
    stored = json.loads((directory / "results.json").read_text())["results"]
    return [{key: value for key, value in result.items() if "step_us" not in key} for result in stored]


def test_version_and_help() -> None:
    assert neon_command("--version").stdout == f"neon {neon.__version__}\n"
    shown = neon_command("compare", "--help")
    assert shown.exit_code == 0
    for option in ("--optimizer", "--task", "--epochs", "--batch-size", "--seed", "--target"):
        assert option in shown.stdout


def test_a_comparison_leaves_table_results_and_figure(in_folder: Path) -> None:
    done = compare()
    assert done.exit_code == 0, done.output
    assert "Adam: finished, validation accuracy" in done.stdout
    assert "two clouds: 4 epochs, batch size 16, seed 0" in done.stdout
    assert re.search(r"Lion\(\)\s+\d+\.\d %\s+\d+\.\d %\s+\d\.\d{4}\s+\d+", done.stdout)
    output = in_folder / "neon-compare"
    assert sorted(path.name for path in output.iterdir()) == [
        "compare.png",
        "compare.svg",
        "results.json",
        "runs",
    ]
    assert {result["optimizer"] for result in curves(output)} == {"Adam()", "Lion()"}


def test_what_is_finished_is_kept_unless_fresh() -> None:
    compare(optimizers=("Adam()",))
    assert "1 of 2 optimizers are finished in neon-compare already" in compare().stdout
    fresh = compare("--fresh")
    assert fresh.exit_code == 0
    assert "already" not in fresh.stdout


@pytest.mark.parametrize("step", [1, 3 * STEPS_OF_AN_EPOCH, 5 * STEPS_OF_AN_EPOCH + 2])
def test_an_interrupt_keeps_what_was_done(in_folder: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    compare("--output", "whole")
    sys.modules.pop("clouds")
    monkeypatch.setenv("INTERRUPT_AT_STEP", str(step))
    stopped = compare("--output", "parts")
    assert stopped.exit_code == 130
    finished, epoch = divmod((step - 1) // STEPS_OF_AN_EPOCH, 4)
    label = ("Adam", "Lion")[finished]
    assert (
        f"Interrupted: {finished} of 2 optimizers finished, {label} kept up to epoch {epoch} of 4. "
        "Run the same command to go on." in stopped.stderr
    )
    assert "Traceback" not in stopped.output
    monkeypatch.delenv("INTERRUPT_AT_STEP")
    resumed = compare("--output", "parts")
    assert resumed.exit_code == 0
    assert curves(in_folder / "parts") == curves(in_folder / "whole")


def test_divergence_is_shown_and_is_no_failure() -> None:
    done = compare(optimizers=("GradientDescentMomentum(1e6, 0.9)", "Adam()"))
    assert done.exit_code == 0
    assert re.search(r"GradientDescentMomentum: diverged at epoch \d", done.stdout)
    assert "Adam: finished" in done.stdout


def test_the_seed_repeats_a_run(in_folder: Path) -> None:
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        assert compare("--seed", seed, "--output", name).exit_code == 0
    assert curves(in_folder / "a") == curves(in_folder / "b")
    assert curves(in_folder / "a") != curves(in_folder / "c")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "Adm()"], "unknown class 'Adm' in 'Adm()'. Did you mean Adam?"),
        (["--optimizer", "__import__('os').getcwd()"], "which is not allowed"),
        (["--optimizer", "Adam(learning_rate=-1)"], "learning_rate"),
        (["--optimizer", "Adam()", "--optimizer", "Adam( )"], "Adam() is given 2 times"),
        (["--task", "clouds"], "expected module:name"),
        (["--task", "clouds:mak"], "has no 'mak'. Did you mean 'make'?"),
        (["--epochs", "0"], "epochs must be a whole number, at least 1; received 0"),
        (["--batch-size", "-2"], "batch_size must be a whole number, at least 1; received -2"),
        (["--seed", "-1"], "seed must be a whole number, at least 0; received -1"),
        (["--target", "95"], "target must be an accuracy above 0 and at most 1, such as 0.95"),
        (["--target", "nan"], "received nan"),
        (["--output", "clouds.py"], "cannot write to the output directory clouds.py"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(in_folder: Path, arguments: list[str], message: str) -> None:
    refused = neon_command("compare", *arguments)
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert message in refused.stderr
    assert refused.stderr.startswith("neon compare: ")
    assert refused.stderr.count("\n") == 1
    assert not (in_folder / "neon-compare").exists()


def test_an_unknown_option_is_exit_code_2() -> None:
    assert neon_command("compare", "--epoks", "3").exit_code == 2


@pytest.mark.parametrize("package", ["matplotlib", "sklearn.datasets"])
def test_a_missing_extra_is_named_before_training(
    in_folder: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    refused = neon_command("compare")
    assert refused.exit_code == 2
    assert 'pip install "neon-optimizers[compare]"' in refused.stderr
    assert not (in_folder / "neon-compare").exists()


def test_a_comparison_covers_every_rule_and_opens_no_window(monkeypatch: pytest.MonkeyPatch, in_folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    done = neon_command("compare", "--every", "--epochs", "1", "--batch-size", "256")
    assert done.exit_code == 0, done.output
    compared = {parse_optimizer(result["optimizer"]).name for result in curves(in_folder / "neon-compare")}
    exported = {
        value.__name__
        for _, value in inspect.getmembers(optimizers, inspect.isclass)
        if issubclass(value, optimizers.Optimizer) and value not in (optimizers.Optimizer, optimizers.Transform)
    }
    assert compared == exported - {"Muon", "NorMuon"}  # which take no biases: they are compared within a mapping
    assert {result["status"] for result in curves(in_folder / "neon-compare")} == {"finished"}


# -- output without Unicode ------------------------------------------------------------------------


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "cp1252"])
def test_a_comparison_is_shown_in_what_the_terminal_has(in_folder: Path, charset: str) -> None:
    task = (in_folder / "clouds.py").read_text().replace("two clouds", "zwei Wölkchen ☁, γ → ∞")
    (in_folder / "clouds.py").write_text(task, encoding="utf-8")
    settings = ["--task", "clouds:make", "--epochs", "1", "--optimizer", "Adam()"]
    done = CliRunner(charset=charset).invoke(app, ["compare", *settings], catch_exceptions=False)
    assert done.exit_code == 0
    shown = done.stdout_bytes.decode(charset)
    assert re.search(r"step\s", shown)
    assert ("us" if charset == "ascii" else "µs") in shown
    assert f"zwei {'Wolkchen' if charset == 'ascii' else 'Wölkchen'} ?, gamma -> inf" in shown
    title = json.loads((in_folder / "neon-compare" / "results.json").read_text(encoding="utf-8"))["title"]
    assert title.startswith("zwei Wölkchen ☁, γ → ∞")


def test_results_are_there_when_the_table_cannot_be_printed(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("the terminal is gone")

    monkeypatch.setattr("neon.commands.compare.compare_command.result_table", fail)
    assert isinstance(compare().exception, OSError)
    assert len(curves(in_folder / "neon-compare")) == 2


def test_a_rule_is_shown_in_ascii() -> None:
    done = CliRunner(charset="ascii").invoke(app, ["show", "adam"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "exp_avg    <- beta1*exp_avg + (1-beta1)*g" in done.stdout
    assert "def " in done.stdout


def test_a_command_prints_where_the_environment_asks_for_ascii(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(neon.__file__).parents[1])}
    command = "from neon.cli import app; app(['show', 'lion'])"
    done = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"sign(beta1*exp_avg + (1-beta1)*g)" in done.stdout
