"""neon report: the file of a run read, many steps in few columns, names of rows, and the figures."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from statistics_rows import row
from torch import nn
from typer.testing import CliRunner

from neon.cli import app
from neon.commands.errors import RunFileError
from neon.commands.report.binned import binned
from neon.commands.report.heat_figure import save_heat_maps
from neon.commands.report.row_labels import labels
from neon.commands.report.run_file import read_run
from neon.optimizers import AdamW
from neon.statistics import Row, StatisticsTable
from neon.statistics.row import COLUMNS

NAN, INF = math.nan, math.inf
every_file = pytest.mark.parametrize("name", ["run.jsonl", "run.csv"])


def write(path: Path, *tables: Sequence[Row]) -> Path:
    for step, rows in enumerate(tables, 1):
        StatisticsTable(step, rows).append_to(path)
    return path


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False, env={"COLUMNS": "200"})


# -- the file --------------------------------------------------------------------------------------


@every_file
def test_layers_are_what_a_table_by_layer_has(name: str, tmp_path: Path) -> None:
    rows = [
        row("0.weight", gradient_norm=3.0, weight_norm=0.0, update_norm=NAN),
        row("1.weight", update_norm=0.0),
        row("0.bias", gradient_norm=4.0, weight_norm=5.0, update_norm=INF),
        row("scale", gradient_norm=1e200, weight_norm=0.0, update_norm=1.0),
        row("shift", gradient_norm=1e200, weight_norm=0.0, update_norm=1.0),
    ]
    run = read_run(write(tmp_path / name, rows, rows[1:2]))
    assert run.rows == ("0", "1", "")
    assert list(run.steps) == [1, 2]
    assert run.there.tolist() == [[True, False], [True, True], [True, False]]
    expected = StatisticsTable(1, rows).by_layer()
    np.testing.assert_allclose(run.gradient[:, 0], [r.gradient_norm for r in expected], rtol=1e-15)
    np.testing.assert_allclose(run.update_to_weight[:, 0], [r.update_to_weight for r in expected], rtol=1e-15)
    assert not run.cut_off


@pytest.mark.parametrize(
    ("update", "weight", "expected"),
    [(1.0, 4.0, 0.25), (0.0, 0.0, 0.0), (1.0, 0.0, INF), (NAN, 0.0, NAN), (1.0, NAN, NAN), (0.0, 2.0, 0.0)],
)
def test_the_ratio_is_that_of_a_row(update: float, weight: float, expected: float, tmp_path: Path) -> None:
    run = read_run(write(tmp_path / "run.jsonl", [row("w", update_norm=update, weight_norm=weight)]))
    np.testing.assert_equal(run.update_to_weight, [[expected]])


@every_file
def test_parameters_have_rows_of_their_own(name: str, tmp_path: Path) -> None:
    run = read_run(write(tmp_path / name, [row("0.weight"), row("0.bias")]), by="parameter")
    assert run.rows == ("0.weight", "0.bias")
    np.testing.assert_allclose(run.update_to_weight, 0.001)


@every_file
def test_a_training_is_read_as_it_was(name: str, tmp_path: Path) -> None:
    """With a layer that is frozen for a while, and a gradient that is not finite."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = AdamW(learning_rate=0.01).attach(model, statistics=2)
    tables: list[StatisticsTable] = []
    for step in range(1, 13):
        if step == 5:
            optimizer.freeze("0")
        if step == 9:
            optimizer.unfreeze("0")
        optimizer.zero_grad()
        model(torch.randn(16, 4)).square().mean().backward()
        if step == 12:
            model[2].bias.grad.fill_(INF)
        optimizer.step()
        if step % 2 == 0:
            tables.append(optimizer.statistics())
            tables[-1].append_to(tmp_path / name)
    run = read_run(tmp_path / name)
    assert (run.rows, list(run.steps)) == (("0", "2"), [2, 4, 6, 8, 10, 12])
    assert run.there.tolist() == [[True, True, False, False, True, True], [True] * 6]
    for column, table in enumerate(tables):
        for r in table.by_layer():
            found = (
                run.gradient[run.rows.index(r.layer), column],
                run.update_to_weight[run.rows.index(r.layer), column],
            )
            np.testing.assert_allclose(found, (r.gradient_norm, r.update_to_weight), rtol=1e-14)
    assert run.gradient[1, 5] == INF
    assert math.isnan(run.update_to_weight[1, 5])


@every_file
def test_a_table_by_layer_is_read(name: str, tmp_path: Path) -> None:
    StatisticsTable(5, [row("0.weight"), row("0.bias", gradient_norm=4.0)]).by_layer().append_to(tmp_path / name)
    run = read_run(tmp_path / name)
    assert (run.rows, list(run.steps), run.gradient.tolist()) == (("0",), [5], [[5.0]])
    text = (tmp_path / name).read_text(encoding="utf-8")
    (tmp_path / name).write_text(text, encoding="utf-8-sig")  # as some editors save it
    assert read_run(tmp_path / name).rows == ("0",)


@every_file
def test_what_a_resumed_run_writes_again_counts(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    for step, norm in ((2, 1.0), (4, 1.0), (2, 8.0), (3, 8.0)):
        StatisticsTable(step, [row("0.weight", gradient_norm=norm), row("0.bias", gradient_norm=0.0)]).append_to(path)
    run = read_run(path)
    assert list(run.steps) == [2, 3, 4]
    assert run.gradient.tolist() == [[8.0, 8.0, 1.0]]
    assert run.again == 2


@every_file
def test_layers_that_come_later_have_their_place(name: str, tmp_path: Path) -> None:
    """As those of a network that is unfrozen from its end on."""
    path = tmp_path / name
    for step, layers in enumerate(("46", "3467", "1346", "1234567"), 1):
        table = [row(f"{layer}.{end}", gradient_norm=float(layer)) for layer in layers for end in ("weight", "bias")]
        StatisticsTable(step, table).by_layer().append_to(path)
    run = read_run(path)
    assert run.rows == tuple("1234567")
    StatisticsTable(9, [row("0.weight"), row("8.weight")]).append_to(path)  # of another optimizer
    assert read_run(path).rows == tuple("123456708")
    assert run.gradient[:, -1].tolist() == pytest.approx([float(layer) * 2**0.5 for layer in run.rows])


@every_file
@pytest.mark.parametrize("cut", [1, 3, 40])
def test_the_end_of_a_file_that_is_still_written(name: str, cut: int, tmp_path: Path) -> None:
    path = write(tmp_path / name, [row("w")], [row("w")])
    text = path.read_text()
    path.write_text(text[: len(text) - cut - 1])
    run = read_run(path)
    # Of the columns that are read the last is in the middle: a line of CSV that has all cells is taken.
    whole = cut < 5 and name == "run.csv"
    assert (run.cut_off, list(run.steps)) == ((False, [1, 2]) if whole else (True, [1]))


def test_other_columns_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text(
        "step,loss,parameter,layer,gradient_norm,weight_norm,update_norm\n\n7,0.5,a.w,a,Infinity,nan,1e-3\n"
    )
    (tmp_path / "run.jsonl").write_text(
        '\n{"step": 7, "parameter": "a.w", "layer": "a", "gradient_norm": Infinity, "weight_norm": "NaN", '
        '"update_norm": 1e-3}\n'
    )
    for name in ("run.csv", "run.jsonl"):
        run = read_run(tmp_path / name)
        np.testing.assert_equal((run.rows, run.gradient, run.update_to_weight), (("a",), [[INF]], [[NAN]]))


def line(**values: Any) -> str:
    """A line of JSON with other texts for some of its values."""
    plain = {"step": "1", "parameter": '"w"', "layer": '""', **dict.fromkeys(COLUMNS[4:7], "1.0")}
    return "{" + ", ".join(f'"{name}": {text}' for name, text in {**plain, **values}.items()) + "}\n"


BAD = {
    "no JSON": ("run.jsonl", line() + "step 2\n", "line 2: this is not JSON: 'step 2'"),
    "no JSON, one line": ("run.jsonl", "step 1", "line 1: this is not JSON: 'step 1'"),
    "a number": ("run.jsonl", "3\n", r"line 1: expected an object of JSON, {...}; received 3"),
    "no norm": ("run.jsonl", '{"step": 1, "loss": 2}\n', "line 1: there is no gradient_norm, .* among step, loss"),
    "text": ("run.jsonl", line() + line(update_norm='"much"'), "line 2: update_norm is 'much', no norm"),
    "null": ("run.jsonl", line(weight_norm="null"), "line 1: weight_norm is None, no norm"),
    "negative": ("run.jsonl", line(weight_norm="-1"), "line 1: weight_norm is -1, no norm: a number from 0, Inf"),
    "huge": ("run.jsonl", line(weight_norm="1" + 400 * "0"), r"line 1: weight_norm is 10+\.\.\.0+, no norm"),
    "half a step": ("run.jsonl", line(step="1.5"), "line 1: step is 1.5, no whole number from 0"),
    "infinite step": ("run.jsonl", line(step="Infinity"), "line 1: step is inf, no whole number"),
    "step before 0": ("run.jsonl", line(step="-1"), "line 1: step is -1, no whole number"),
    "step past 64 bits": ("run.jsonl", line(step="9" * 30), "line 1: step is 9+, no whole number"),
    "empty": ("run.jsonl", "", r"has no line of statistics.*append_to\('run.jsonl'\)"),
    "blank": ("run.jsonl", "\n\n", "has no line of statistics"),
    "header alone": ("run.csv", ",".join(COLUMNS) + "\n", "has no line of statistics"),
    "empty CSV": ("run.csv", "", "has no line of statistics"),
    "other CSV": ("run.csv", "epoch,loss\n1,2\n", "line 2: there is no gradient_norm, .* among epoch, loss"),
    "too few cells": ("run.csv", ",".join(COLUMNS) + "\n1,w\n", "line 2: 2 cells where the first line has 15"),
    "an empty cell": ("run.csv", ",".join(COLUMNS) + "\n1,w,w,3" + 11 * "," + "\n", "line 2: gradient_norm is '', no"),
    "JSON in CSV": ("run.csv", line(), "has no line of statistics"),
    "a zero byte": ("run.csv", ",".join(COLUMNS) + "\n1,\0\n", "line 2: "),
}


@pytest.mark.parametrize(("name", "text", "said"), BAD.values(), ids=BAD)
def test_bad_files_are_told_in_one_line(name: str, text: str, said: str, in_folder: Path) -> None:
    Path(name).write_text(text)
    refused = report(name)
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert re.fullmatch(rf"neon report: {name},? .*{said}.*\n", refused.stderr)
    assert len(refused.stderr) < 500
    assert [path.name for path in in_folder.iterdir()] == [name]


def test_files_that_cannot_be_read(in_folder: Path) -> None:
    assert report("run.jsonl").stderr == "neon report: there is no file run.jsonl.\n"
    assert "neon report: cannot read .: IsADirectoryError" in report(".").stderr
    Path("run.jsonl").write_bytes(b"\xff\xfe\x00")
    assert "neon report: cannot read run.jsonl: UnicodeDecodeError" in report("run.jsonl").stderr
    with pytest.raises(RunFileError):
        read_run(in_folder / "other")


# -- many steps in few columns ---------------------------------------------------------------------


def test_few_steps_stay_as_they_are() -> None:
    grid = np.array([[1.0, 0.0, NAN], [INF, 5.0, 7.0]])
    there = np.array([[True, True, True], [True, False, True]])
    found = binned(grid, there, np.array([1, 5, 9]))
    np.testing.assert_allclose(found.values, [[1.0, NAN, NAN], [NAN, NAN, 7.0]])
    assert found.zero.tolist() == [[False, True, False], [False, False, False]]
    assert found.nan.tolist() == [[False, False, True], [False, False, False]]
    assert found.infinite.tolist() == [[False, False, False], [True, False, False]]
    assert found.absent.tolist() == [[False, False, False], [False, True, False]]
    assert (found.width, list(found.steps)) == (1, [1, 5, 9])


def test_many_steps_are_medians() -> None:
    grid = np.array([[1.0, 2.0, 100.0, 1.0, 100.0, 0.0, 0.0, 0.0]])
    there = np.array([[True, True, True, True, True, False, True, True]])
    found = binned(grid, there, np.arange(1, 9), most=3)
    # An even number of values: the mean of the logarithms of the middle two.
    np.testing.assert_allclose(found.values, [[2.0, 10.0, NAN]])
    assert (found.width, list(found.steps)) == (3, [1, 4, 7])
    assert found.zero.tolist() == [[False, False, True]]
    assert not found.absent.any()


def test_one_step_that_is_none_shows_in_its_column() -> None:
    grid = np.array([[1.0, NAN, 1.0, 1.0, INF, 1.0, 1.0, 0.0, 1.0]])
    found = binned(grid, np.ones((1, 9), bool), np.arange(9), most=3)
    assert (found.nan.tolist(), found.infinite.tolist()) == ([[True, False, False]], [[False, True, False]])
    np.testing.assert_allclose(found.values, [[1.0, 1.0, 1.0]])
    assert not found.zero.any()


@pytest.mark.parametrize("steps", [1, 299, 300, 301, 10_000])
def test_there_are_at_most_300_columns(steps: int) -> None:
    found = binned(np.ones((2, steps)), np.ones((2, steps), bool), np.arange(steps))
    assert steps / found.width <= found.values.shape[1] <= 300
    np.testing.assert_allclose(found.values, 1.0)
    assert len(found.steps) == found.values.shape[1]


# -- names of rows ---------------------------------------------------------------------------------


def test_each_row_has_its_name_where_there_is_room() -> None:
    found = labels(["embed", "blocks.0.attention", "blocks.0.mlp", ""], room=4)
    assert [label.text for label in found] == ["embed", "blocks.0.attention", "blocks.0.mlp", "(model)"]
    assert [(label.begin, label.end) for label in found] == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_blocks_have_one_name_where_there_is_room_for_no_more() -> None:
    names = ["embed", *(f"blocks.{block}.{part}" for block in range(10) for part in ("q", "k", "v")), "head"]
    found = labels(names, room=12)
    assert [label.text for label in found] == ["embed", *(f"blocks.{block}" for block in range(10)), "head"]
    assert (found[1].begin, found[1].end, found[-1].end) == (1, 4, 32)


def test_more_blocks_than_room_are_thinned() -> None:
    found = labels([f"blocks.{block}.{part}" for block in range(96) for part in "qkv"], room=40)
    assert len(found) == 96
    assert [label.text for label in found[:4]] == ["blocks.0", "", "", "blocks.3"]
    assert sum(bool(label.text) for label in found) <= 40


@pytest.mark.parametrize("count", [1, 2, 5, 150, 5000])
def test_labels_cover_all_rows(count: int) -> None:
    found = labels([f"{number}.linear" for number in range(count)], room=45)
    assert [label.begin for label in found] == [0, *(label.end for label in found[:-1])]
    assert found[-1].end == count
    assert 1 <= sum(bool(label.text) for label in found) <= 45


def test_a_long_name_is_shortened() -> None:
    [label] = labels(["model." + "very_long_name." * 10 + "weight"], room=1)
    assert label.text.startswith("model.")
    assert label.text.endswith("weight")
    assert len(label.text) <= 40


def test_long_names_keep_what_they_differ_in() -> None:
    """And the part before that, and what follows as far as there is room."""
    names = [f"base.model.layers.{n}.attention.{side}.low_rank.default" for n in (3, 11) for side in ("query", "key")]
    found = labels(["head", *names], room=9)
    assert [label.text for label in found] == [
        "head",
        "...layers.3.attention.query.low_rank...",
        "...layers.3.attention.key.low_rank...",
        "...layers.11.attention.query.low_rank...",
        "...layers.11.attention.key.low_rank...",
    ]
    found = labels(["x" * 50, "y" * 50, "a" * 50 + ".b", "a" * 50 + ".b.c"], room=9)
    assert len({label.text for label in found}) == 4
    assert max(len(label.text) for label in found) <= 40


# -- figures ---------------------------------------------------------------------------------------


def colours_of(png: Path) -> set[Any]:
    """Those of many pixels: not of the edges of letters."""
    with Image.open(png) as image:
        image.load()
        return {colour for count, colour in image.convert("RGB").getcolors(1 << 24) or () if count > 2000}


def assert_whole(png: Path) -> None:
    """Nothing is cut at an edge, and no title has made the figure wider."""
    with Image.open(png) as image:
        pixels = np.asarray(image.convert("L"))
    assert all((edge == 255).all() for edge in (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))
    assert pixels.shape[1] <= 160 * 12.5


SHAPES: dict[str, tuple[int, int, Callable[..., dict[str, float]]]] = {
    "5 layers": (5, 20, lambda layer, step: {"gradient_norm": 10.0**layer, "update_norm": 0.1 / step}),
    "one step": (3, 1, lambda layer, step: {"gradient_norm": 1.0}),
    "many steps": (2, 700, lambda layer, step: {"gradient_norm": math.exp(-step)}),
    "300 layers": (300, 3, lambda layer, step: {"gradient_norm": 1.01**layer}),
    "zeros": (2, 3, lambda layer, step: {"gradient_norm": 0.0, "update_norm": 0.0}),
    "NaN alone": (1, 1, lambda layer, step: {"gradient_norm": NAN, "update_norm": INF}),
    "wide range": (2, 400, lambda layer, step: {"gradient_norm": 10.0 ** (step - 300), "update_norm": 1e-300}),
}


@pytest.mark.parametrize(("layers", "steps", "values"), SHAPES.values(), ids=SHAPES)
def test_the_figure_is_a_valid_png_and_svg(layers: int, steps: int, values: Any, tmp_path: Path) -> None:
    rows = [[row(f"b.{number}.w", **values(number, step)) for number in range(layers)] for step in range(1, steps + 1)]
    png, svg = save_heat_maps(tmp_path, read_run(write(tmp_path / "run.csv", *rows)), "a title <&> $x" * 20)
    assert colours_of(png)
    assert_whole(png)
    root = ElementTree.parse(svg).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert svg.stat().st_size < 1_000_000


def test_what_is_no_number_has_a_colour_of_its_own(tmp_path: Path) -> None:
    def write_and_draw(name: str, **values: float) -> set[Any]:
        (tmp_path / name).mkdir()
        rows = [row("a.w"), row("b$_.w", **values)]
        path = write(tmp_path / name / "run.jsonl", rows, rows[: 1 if name == "absent" else 2])
        return colours_of(save_heat_maps(path.parent, read_run(path), "title")[0])

    special = {"infinite": (213, 94, 0), "absent": (212, 212, 212), "nan": (0, 0, 0)}
    assert not {*special.values()} & write_and_draw("plain")
    for name, value in (("infinite", INF), ("absent", 1.0), ("nan", NAN)):
        assert {*special.values()} & write_and_draw(name, gradient_norm=value) == {special[name]}


def test_the_same_run_draws_the_same_file(tmp_path: Path) -> None:
    run = read_run(write(tmp_path / "run.jsonl", [row("0.w"), row("1.w", update_norm=NAN)], [row("0.w")]))

    def draw(name: str) -> list[bytes]:
        (tmp_path / name).mkdir()
        return [path.read_bytes() for path in save_heat_maps(tmp_path / name, run, "title")]

    assert draw("first") == draw("second")


# -- the command -----------------------------------------------------------------------------------


def test_the_command_says_what_stands_out(in_folder: Path) -> None:
    def rows(step: int) -> list[Row]:
        return [
            row("0.weight", gradient_norm=5.0 if step == 2 else 1.0, update_norm=0.02),
            row("1.weight", gradient_norm=NAN if step == 2 else 2.0, weight_norm=0.0 if step == 1 else 1.0),
            row("scale", gradient_norm=3.0),
        ]

    write(Path("run.jsonl"), rows(1), rows(2))
    done = report("run.jsonl")
    assert done.exit_code == 0
    figures = [str(Path("neon-report") / f"report.{end}") for end in ("png", "svg")]
    assert done.stdout.splitlines() == [
        "2 steps, 3 layers",
        "update/weight: least 0.001 ((model), step 1), largest 0.01 (0, step 1), infinite: 1 (first in 1, step 1)",
        "gradient: least 1 (0, step 1), largest 5 (0, step 2), NaN: 1 (first in 1, step 2)",
        f"Written: {', '.join(figures)}",
    ]
    assert sorted(path.name for path in Path("neon-report").iterdir()) == ["report.png", "report.svg"]


@pytest.mark.parametrize(("times", "said"), [(1, "1 line is"), (2, "2 lines are")])
def test_the_command_says_what_a_later_line_stands_for(times: int, said: str, in_folder: Path) -> None:
    """Of two optimizers whose parameters are called the same, as of a resumed run, one is seen alone."""
    write(Path("run.jsonl"), [row("0.weight")])
    for _ in range(times):
        StatisticsTable(1, [row("0.weight")]).to_jsonl("run.jsonl")
    assert report("run.jsonl").stdout.startswith(f"run.jsonl: {said} on a parameter and step of a later line")
    StatisticsTable(1, [row("0.weight")]).prefixed("critic").to_jsonl("new.jsonl")
    assert report("new.jsonl").stdout.startswith("1 step, 1 layer")


def test_the_command_for_parameters_elsewhere(in_folder: Path) -> None:
    write(Path("run.csv"), [row("0.weight")])
    with Path("run.csv").open("a") as file:
        file.write("2,0.wei")
    done = report("run.csv", "--by", "parameter", "--output", "here/figures")
    assert done.stdout.splitlines()[:2] == [
        "run.csv: the last line is incomplete, and left out.", "1 step, 1 parameter",
    ]  # fmt: skip
    assert Path("here/figures/report.svg").exists()


def test_requests_that_cannot_be_met(in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("run.csv"), [row("0.weight")])
    assert "--by must be layer or parameter; received 'step'" in report("run.csv", "--by", "step").stderr
    assert "cannot write to the output directory run.csv" in report("run.csv", "--output", "run.csv").stderr
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused = report("run.csv")
    assert refused.exit_code == 2
    assert 'needs matplotlib, which is not installed. Run: pip install "neon-optimizers[compare]"' in refused.stderr
    assert [path.name for path in in_folder.iterdir()] == ["run.csv"]
