"""Broken trainings, each of which an audit names, and sound ones, of which it says nothing."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from neon.audit import AuditWarning
from neon.audit.checks import CHECKS

GALLERY = Path(__file__).parent / "gallery"
BROKEN, SOUND = (sorted(path.stem for path in (GALLERY / kind).glob("*.py")) for kind in ("broken", "sound"))

pytestmark = pytest.mark.usefixtures("nothing_compiled")


def run(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], set[str], set[str]]:
    """A program, and the kinds that are named by themselves and when asked."""
    monkeypatch.syspath_prepend(str(GALLERY))
    program = runpy.run_path(str(GALLERY / kind / f"{name}.py"))
    torch.manual_seed(0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", AuditWarning)
        optimizer, model = program["train"]()
    said = [line for warning in caught for line in str(warning.message).splitlines() if line.startswith("- ")]
    assert all(issubclass(warning.category, AuditWarning) for warning in caught)
    by_itself = {check.kind for check in CHECKS for line in said if line.startswith(f"- {check.kind}: ")}
    assert bool(by_itself) == bool(said)
    return program, by_itself, set(optimizer.audit(model).kinds)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_training_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program, by_itself, asked = run("broken", name, monkeypatch)
    assert by_itself == ({program["KIND"]} if program["BY_ITSELF"] else set())
    assert asked == {program["KIND"]}


@pytest.mark.parametrize("name", SOUND)
def test_nothing_is_said_of_a_sound_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, by_itself, asked = run("sound", name, monkeypatch)
    assert (by_itself, asked) == (set(), set())


def test_each_check_has_a_broken_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GALLERY))
    kinds = {runpy.run_path(str(GALLERY / "broken" / f"{name}.py"))["KIND"] for name in BROKEN}
    assert kinds == {check.kind for check in CHECKS}
    assert min(len(BROKEN), len(SOUND)) >= 12
