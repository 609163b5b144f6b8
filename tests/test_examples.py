"""Every example runs, trains for real, and reaches what it promises; one as a newcomer runs it, in a new process."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# Example, the label of the number it ends with, the least and the most that it may be.
CASES = [
    ("documented_snippets", "difference", 0.0, 0.0),
    ("mlp_digits", "validation accuracy", 0.95, 1.0),
    ("alexnet_multioptimizer", "validation accuracy", 0.94, 1.0),
    ("text_rmsprop", "bits per character", 1.0, 2.6),
    ("custom_rule", "Yogi accuracy", 0.94, 1.0),
    ("torch_drop_in", "accuracy", 0.93, 1.0),
    ("transformer_rates", "accuracy", 0.92, 1.0),
    ("watch_updates", "accuracy", 0.75, 1.0),
]
SHORTER = {"text_rmsprop": ("--quick",)}

SHORT = ("-e", "20")  # of the 40 epochs that are documented: the bounds hold by then

# Programs in the form of the documented framework's: what they display at the end, and the most that it may be.
DOCUMENTED = [
    ("documented/mlp", (), "Misclassification error", 6.0),
    ("documented/alexnet", (), "Misclassification error", 5.0),
    ("documented/char_lstm", (), "Bits per character", 2.7),
    ("documented/char_lstm", ("-e", "1", "--rlayer_type", "gru", "-u"), "Bits per character", 4.0),
    ("documented/gan", SHORT, "Distance after training", 1.2),
]

MAPPING = """\
layer           class       optimizer
layer_one       Linear      optimizer_B
layer_two       Linear      optimizer_C
Affine.Linear   Linear      optimizer_B
Affine.Bias     Bias        optimizer_A
Affine.Softmax  Activation  None (no parameters)
"""


# One thread: where other work keeps the cores busy, torch's threads wait for each other without end.
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
PYTHON = (sys.executable, "-W", "error")


@lru_cache
def forks() -> subprocess.Popen[str]:
    """A process that has imported torch, of which each program is a fork: imports are most of what a program costs."""
    program = str(Path(__file__).with_name("forked_programs.py"))
    return subprocess.Popen(
        [*PYTHON, program], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )


@pytest.fixture(scope="module", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    if forks.cache_info().currsize:
        forks().communicate(timeout=60)
        assert forks().returncode == 0


@lru_cache
def output_of(name: str, arguments: tuple[str, ...] = ()) -> str:
    """What a program writes, and what it logs."""
    program = [str(EXAMPLES / f"{name}.py"), *SHORTER.get(name, arguments)]
    if name == "documented_snippets" or not hasattr(os, "fork"):  # as a newcomer runs it
        run = subprocess.run([*PYTHON, *program], env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=120)
        assert run.returncode == 0, run.stderr
        return run.stdout + run.stderr
    with tempfile.NamedTemporaryFile(suffix=".txt") as written:
        process = forks()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([program[0], program[1:], written.name]) + "\n")
        process.stdin.flush()
        status, text = process.stdout.readline(), Path(written.name).read_text(encoding="utf-8")
    assert status == "0\n", text
    return text


def columns(text: str) -> list[list[str]]:
    return [re.split(r"  +", line)[:3] for line in text.splitlines()]


@pytest.mark.parametrize(("name", "label", "least", "most"), CASES, ids=[name for name, *_ in CASES])
def test_example_reaches_what_it_promises(name: str, label: str, least: float, most: float) -> None:
    printed = output_of(name)
    assert printed.splitlines()[-1].startswith(f"{label}: ")
    assert least <= float(printed.split()[-1]) <= most


@pytest.mark.parametrize(("name", "arguments", "label", "most"), DOCUMENTED, ids=str)
def test_programs_of_the_documented_framework_learn(
    name: str, arguments: tuple[str, ...], label: str, most: float
) -> None:
    [reached] = re.findall(rf"{label} = ([\d.]+)", output_of(name, arguments))
    assert 0 < float(reached) <= most


def test_a_generative_pair_comes_nearer_to_its_data() -> None:
    before, after = re.findall(r"Distance (?:before|after) training = ([\d.]+)", output_of("documented/gan", SHORT))
    assert float(after) < float(before) / 4


def test_documented_mapping_comes_out_exactly() -> None:
    assert all(row in columns(output_of("documented_snippets")) for row in columns(MAPPING))


def test_resumed_training_has_the_same_bits() -> None:
    assert "the same bits: True" in output_of("torch_drop_in").splitlines()


def test_loss_of_the_text_falls_every_epoch() -> None:
    bits = [float(b) for b in re.findall(r"validation (\S+) bits", output_of("text_rmsprop"))]
    assert len(bits) == 2
    assert bits[1] < bits[0] < 4.0


def test_every_example_has_a_case() -> None:
    found = {path.relative_to(EXAMPLES).with_suffix("").as_posix() for path in EXAMPLES.rglob("*.py")}
    assert found == {name for name, *_ in (*CASES, *DOCUMENTED)}
