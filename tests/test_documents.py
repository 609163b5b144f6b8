"""The Python in README, guide and pages runs as printed, block after block, and prints what is shown below it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from code_blocks import ROOT, run_blocks

import neon.torch
from neon.engine.program.options import DESCRIBED, Place


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "docs/guide.md",
        "docs/pytorch.md",
        "docs/precision.md",
        "docs/statistics.md",
        "docs/documented_programs.md",
        "docs/audit.md",
    ],
)
def test_code_blocks_run(document: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [document])  # a program reads its command line
    torch.manual_seed(0)
    run_blocks(document, tmp_path)


def rows_of(document: str, heading: str) -> list[list[str]]:
    """The cells of the tables below a heading, row by row; a row begins with something in code."""
    part = (ROOT / document).read_text(encoding="utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    return [line.split("|")[1:-1] for line in part.splitlines() if line.startswith("| `")]


def test_the_map_has_every_file() -> None:
    package = ROOT / "neon"
    named = [path for row in rows_of("docs/design.md", "The map") for path in re.findall(r"`([^`]+)`", row[0])]
    assert len(named) == len({*named})
    assert not [path for path in named if not (package / path).exists()]
    files = [file.relative_to(package).as_posix() for file in package.rglob("*.py")]
    assert not [file for file in files if file not in named and f"{Path(file).parent.as_posix()}/" not in named]


@pytest.mark.parametrize("document", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_files_that_a_page_names_are_there(document: str) -> None:
    text = (ROOT / "docs" / document).read_text(encoding="utf-8")
    paths = re.findall(r"`(?:python )?((?:[a-z_0-9]+/)+[a-z_0-9]+\.py)", text)
    linked = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert not [path for path in paths if not any((ROOT / folder / path).exists() for folder in ("", "neon"))]
    assert not [link for link in linked if not (ROOT / "docs" / link).exists()]


def test_the_guide_lists_every_option() -> None:
    """With its default; those that act on the graph first, in the order in which they do."""
    rows = rows_of("docs/guide.md", "Options of every rule")
    found = [(re.findall(r"`(\w+)=", option)[0], default.strip(" `")) for option, default, *_ in rows]
    expected = {word: repr(option.default) for word, option in DESCRIBED.items() if word != "name"}
    assert sorted(found) == sorted(expected.items())
    places = [DESCRIBED[word].place for word, _ in found]
    acting = [place for place in places if place is not None]
    assert places[: len(acting)] == sorted(acting, key=[*Place].index)


def test_the_page_names_every_class_of_torchs() -> None:
    page = (ROOT / "docs" / "pytorch.md").read_text(encoding="utf-8")
    text = page.split("`neon.torch` has ")[1].split("handed on")[0]
    assert {*re.findall(r"`(\w+)`", text)} == {*neon.torch.__all__} - {"AttachedOptimizer"}


def test_the_glossary_has_the_names_of_the_code() -> None:
    """A class that an entry names is defined in neon."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "neon").rglob("*.py"))
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("## Glossary\n")[1].split("\n## ")[0]
    classes = re.findall(r"\(`([A-Z]\w+)`\)", page)
    assert len(classes) > 15
    assert not [name for name in classes if f"class {name}" not in source]
