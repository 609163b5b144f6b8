"""The table of features in docs/pytorch.md: tried again for neon and torch.optim, and as the stored results have it."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
STORED = json.loads((ROOT / "benchmarks/results/features.json").read_text(encoding="utf-8"))
TABLES = ("features", "muon", "elsewhere")


@pytest.fixture(scope="module")
def features() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("features")


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")  # no_dist=True says it at every call
@pytest.mark.usefixtures("one_thread")
def test_the_stored_results_hold(features: Any) -> None:
    names = ["neon", "torch.optim", "torch.optim, fused"]
    found = features.run(names)
    for table in ("features", "elsewhere"):
        stored = {text: {name: cells[name] for name in names} for text, cells in STORED[table].items()}
        assert found[table] == stored, found["reasons"]
    assert {cells["neon"] for cells in found["features"].values()} == {"yes"}


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled:UserWarning")
@pytest.mark.usefixtures("one_thread")
def test_the_stored_results_of_muon_hold(features: Any) -> None:
    found = features.run_of_muon()
    assert found["muon"] == STORED["muon"], found["reasons of muon"]
    assert {cells["neon, Muon beside AdamW"] for cells in found["muon"].values()} == {"yes"}


@pytest.mark.parametrize("table", TABLES)
def test_the_page_shows_the_stored_results(features: Any, table: str) -> None:
    assert features.markdown(STORED[table]) in (ROOT / "docs/pytorch.md").read_text(encoding="utf-8")
