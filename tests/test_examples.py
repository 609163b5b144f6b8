"""Every example runs as a newcomer runs it, trains for real, and reaches what it promises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

# Example, arguments, and for each number it ends with: its label, the least and the most it may be.
CASES = [
    ("documented_snippets", (), {"difference": (0.0, 0.0)}),
    ("mlp_digits", (), {"validation accuracy": (0.95, 1.0)}),
    ("alexnet_multioptimizer", (), {"validation accuracy": (0.94, 1.0)}),
    ("text_rmsprop", ("--quick",), {"bits per character": (1.0, 2.6)}),
    ("custom_rule", (), {"Adam accuracy": (0.94, 1.0), "AdaBelief accuracy": (0.94, 1.0)}),
    ("torch_drop_in", (), {"accuracy": (0.93, 1.0)}),
]

MAPPING = """\
layer           class       optimizer
layer_one       Linear      optimizer_B
layer_two       Linear      optimizer_C
Affine.Linear   Linear      optimizer_B
Affine.Bias     Bias        optimizer_A
Affine.Softmax  Activation  None (no parameters)
"""


def output_of(name: str, *arguments: str) -> str:
    # One thread: where other work keeps the cores busy, torch's threads wait for each other without end.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py"), *arguments]
    run = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize(("name", "arguments", "expected"), CASES, ids=[name for name, *_ in CASES])
def test_example_reaches_what_it_promises(
    name: str, arguments: tuple[str, ...], expected: dict[str, tuple[float, float]]
) -> None:
    printed = output_of(name, *arguments)
    for label, (least, most) in expected.items():
        found = re.search(rf"^{label}: (\S+)$", printed, re.MULTILINE)
        assert found, printed
        assert least <= float(found[1]) <= most
    if name == "documented_snippets":
        rows = [re.split(r"  +", line)[:3] for line in printed.splitlines()]
        assert all(re.split(r"  +", row)[:3] in rows for row in MAPPING.splitlines())
    if name == "torch_drop_in":
        assert "the same bits: True" in printed


def test_every_example_has_a_case() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {name for name, *_ in CASES}
