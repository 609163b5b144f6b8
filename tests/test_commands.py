"""What the commands list follows from what neon.optimizers exports; stored results stay readable."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from neon import optimizers
from neon.cli import app
from neon.commands.bench.bench_command import Request
from neon.commands.bench.measured_tables import tables
from neon.commands.bench.results import Report
from neon.commands.bench.torch_peers import PEERS, neon_optimizer
from neon.commands.compare.default_optimizers import TUNED, every_optimizer
from neon.commands.library import example_text, exported_rules
from neon.commands.optimizer_text import parse_optimizer
from neon.optimizers import Optimizer

ROOT = Path(__file__).parent.parent
README, RESULTS = ROOT / "README.md", ROOT / "benchmarks/results"


class SignDescent(Optimizer):
    """w ← w − lr·size·sign(g), with numbers that have no defaults."""

    @staticmethod
    def rule(w, g, *, lr, size):
        """w ← w − lr·size·g"""
        return w - lr * size * g

    def __init__(self, learning_rate: float, size: float, gradient_clip_norm: float | None = None) -> None:
        super().__init__(lr=learning_rate, size=size, gradient_clip_norm=gradient_clip_norm)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> str:
    """Another rule is exported."""
    monkeypatch.setattr(optimizers, "SignDescent", SignDescent, raising=False)
    monkeypatch.setattr(optimizers, "__all__", [*optimizers.__all__, "SignDescent"])
    return "SignDescent"


def test_what_is_exported_is_compared_measured_and_shown(exported: str) -> None:
    assert "SignDescent(learning_rate=0.5, size=0.5)" in every_optimizer()
    rows = [line for line in Request(rules="every").lines() if line.rule == exported]
    assert {line.kind for line in rows} == {"step", "rounding", "memory"}
    assert neon_optimizer(exported, "norm", 1.0).group()["lr"] == 0.5
    shown = CliRunner().invoke(app, ["show", "sign_descent"])
    assert "w ← w − lr·size·g" in shown.output


@pytest.mark.parametrize("name", exported_rules())
def test_the_example_of_a_rule_can_be_made(name: str) -> None:
    rule = exported_rules()[name]
    assert type(parse_optimizer(example_text(rule)).build()) is rule


def test_the_page_names_every_rule() -> None:
    """After a new rule, run it with NEON_STORE_DOCS=1."""
    page = README.read_text(encoding="utf-8")
    head, heading, rest = page.partition("## Rules\n\n")
    names = ", ".join(f"`{name}`" for name in sorted(exported_rules(), key=str.lower))
    whole = f"{head}{heading}{names}.\n{rest.partition(chr(10))[2]}"
    if os.environ.get("NEON_STORE_DOCS"):
        README.write_text(whole, encoding="utf-8")
    assert README.read_text(encoding="utf-8") == whole


def test_known_numbers_are_of_exported_rules() -> None:
    assert {*TUNED, *PEERS} <= set(exported_rules())
    assert all(parse_optimizer(text).name == name for name, texts in TUNED.items() for text in texts)


def test_stored_results_of_the_command_are_read() -> None:
    """Older ones have no device in a line: theirs is the processor."""
    read = 0
    for path in RESULTS.glob("*.json"):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(stored, dict) and {"device", "disturbed", "lines"} <= stored.keys():
            report, lines = Report.load(path), stored["lines"]
            assert (report.device, report.disturbed) == (stored["device"], stored["disturbed"])
            assert [result.figures for result in report.results] == [line["figures"] for line in lines]
            assert [asdict(result.line) for result in report.results] == [{"device": "cpu"} | e["line"] for e in lines]
            assert len(tables(report)) > 1
            read += 1
    assert read >= 2
