"""The table and the figure of neon compare."""

from __future__ import annotations

import re
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image
from rich.console import Console

from neon.commands.compare.curve_figure import save_curves, spread
from neon.commands.compare.ranking import ranked, result_table
from neon.compare import MissingExtraError, Result

RESULTS = [
    Result("A()", "finished", [1.0, 0.1], [1.0, 0.2], [0.5, 1.0], [10.0, 30.0]),
    Result("B()", "finished", [1.0, 0.4], [1.0, 0.3], [0.96, 0.9], [5.0, 5.0]),
    Result("C()", "diverged at epoch 2", [9.0], [9.0], [0.1], [7.0]),
    Result("D()", "diverged at epoch 1"),
]


def test_the_table_ranks_and_counts() -> None:
    assert [r.optimizer for r in ranked(RESULTS[::-1], 0.95)] == ["A()", "B()", "C()", "D()"]
    assert [r.epochs_to(0.95) for r in RESULTS] == [2, 1, None, None]
    assert [r.median_step_us for r in RESULTS] == [20.0, 5.0, 7.0, None]
    console = Console(width=120)
    with console.capture() as shown:
        console.print(result_table(RESULTS, 0.95, "a [title]"))
    lines = [line.split() for line in shown.get().splitlines() if re.match(r"\s*[ABCD]\(", line)]
    assert lines[0] == ["A()", "100.0", "%", "100.0", "%", "0.2000", "20", "2"]
    assert lines[1] == ["B()", "96.0", "%", "90.0", "%", "0.3000", "5", "1"]
    assert lines[3] == ["D()", "-", "-", "-", "-", "-", "diverged", "at", "epoch", "1"]
    assert "a [title]" in shown.get()


@pytest.mark.parametrize("results", [RESULTS, RESULTS[:1], RESULTS[3:]])
def test_the_figure_is_a_valid_png_and_svg(tmp_path: Path, results: list[Result]) -> None:
    labels = [f"label {i} <&> $x" for i in range(len(results))]
    png, svg = save_curves(tmp_path, results, labels, 0.95, "a title")
    with Image.open(png) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width > 1200
        assert len(image.convert("RGB").getcolors(1 << 24) or ()) > 10
    root = ElementTree.parse(svg).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    drawn = [g.get("id") for g in root.iter("{http://www.w3.org/2000/svg}g")]
    assert len([name for name in drawn if name and name.startswith("line2d")]) >= len(results)


def test_the_same_results_draw_the_same_file(tmp_path: Path) -> None:
    def draw(name: str) -> list[bytes]:
        (tmp_path / name).mkdir()
        paths = save_curves(tmp_path / name, RESULTS, ["a", "b", "c", "d"], 0.95, "title")
        return [path.read_bytes() for path in paths]

    assert draw("first") == draw("second")


def test_a_figure_without_matplotlib_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r'matplotlib.*pip install "neon-optimizers\[compare\]"'):
        save_curves(tmp_path, RESULTS, ["a", "b", "c", "d"], 0.95, "title")


def test_labels_keep_their_distance() -> None:
    heights = spread([0.0, 0.5, 0.5, 0.51, 1.0], 0.1)
    assert all(b - a > 0.0999 for a, b in pairwise(heights))
    assert heights[-1] <= 1.0
