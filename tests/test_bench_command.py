"""neon bench as a command: what it prints, what it leaves behind, what it refuses."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner
from typer.testing import Result as Done

from neon.cli import app
from neon.commands import machine
from neon.commands.bench import new_process, time_left
from neon.commands.bench.bench_command import Request, run_command
from neon.commands.bench.first_step import first_step
from neon.commands.bench.kinds import KINDS
from neon.commands.bench.matrix_steps import MATRICES
from neon.commands.bench.measured_tables import tables
from neon.commands.bench.results import Line, Report, Result
from neon.commands.bench.tensor_shapes import SHAPES

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every model with a few small tensors on an idle machine; no other processes."""
    for name, shapes in SHAPES.items():
        monkeypatch.setitem(SHAPES, name, replace(shapes, tensors=((64, 64),) * 3, rounds=2, steps=2))
    for name, shapes in MATRICES.items():
        monkeypatch.setitem(MATRICES, name, replace(shapes, tensors=((48, 64),) * 3, rounds=2))

    def run(module: str, *arguments: str, **_: str) -> str:
        if module == "neon.commands.bench.memory":
            extra = {"neon plain": 0.0, "neon norm": 0.0, "neon value": 1.0, "foreach": 4.0}
            kept = {"float32": 12.0, "8-bit states": 6.03}
            buckets = {"neon": float(1 << 25), "torch": 0.0}
            return json.dumps({"memory": extra, "kept": kept, "matrices": buckets}[arguments[0]])
        return str(first_step(*arguments))

    monkeypatch.setattr(new_process, "run", run)
    busy(monkeypatch, 0.0)
    monkeypatch.setattr(machine, "busy_now", lambda: 0.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def busy(monkeypatch: pytest.MonkeyPatch, *shares: float | None) -> list[float | None]:
    """Let others use these shares of a processor, one after the other, the last for good; returns what is left."""
    left = list(shares)
    monkeypatch.setattr(machine.Watch, "busy_with_others", lambda _: left.pop(0) if len(left) > 1 else left[0])
    return left


def bench(*arguments: str) -> Done:
    return CliRunner().invoke(app, ["bench", *arguments])


def quiet_run(**options: str) -> Report:
    request = Request(**{"kinds": "step", "rules": "Adam,Lion", "shapes": "large", "options": "plain,norm"} | options)
    return run_command(replace(request, rounds=2, output=Path("out")), Console(quiet=True))


def test_a_quick_run_measures_shows_and_keeps() -> None:
    done = bench("--quick", "--rounds", "2")
    assert done.exit_code == 0, done.output
    [path] = Path("benchmarks/results").glob("*-part.json")
    stored = json.loads(path.read_text())
    assert {line["line"]["kind"] for line in stored["lines"]} == set(KINDS)
    assert stored["device"]["cores"] >= 1
    assert not stored["disturbed"]
    assert all(line["figures"] for line in stored["lines"])
    for kind, shape in {(line["line"]["kind"], line["line"]["shape"]) for line in stored["lines"]}:
        assert re.search(rf"^\d+/\d+ {kind}: {shape}, (Adam|Muon)", done.stdout, re.MULTILINE)
    assert re.search(r"500 groups: time of one group +≤ 1.30x +\d", done.stdout)
    assert re.search(r"8-bit Adam, AdamW: time of 32-bit states +≤ 0.80x +\d", done.stdout)
    assert re.search(r"8-bit states *\n.*\n Adam +12.000 +6.030", done.stdout)
    assert re.search(r"extra memory, clip by value: bytes a parameter +≤ 0.050 +1.000 +1.000 +0 of 1", done.stdout)
    assert re.search(r"matrices: extra memory, buckets of 64 MiB +≤ 1.05 +0.50 +0.50 +2 of 2", done.stdout)
    assert "*" not in done.stdout.split("Targets")[0]
    assert ElementTree.parse(path.with_suffix(".svg")).getroot().tag.endswith("svg")


def test_a_quick_run_has_a_few_lines_of_each_kind_and_whatever_is_named() -> None:
    quick, whole = Request(quick=True).lines(), Request().lines()
    assert len(quick) <= 24
    assert set(quick) < set(whole)
    assert {line.kind for line in quick} == set(KINDS)
    named = Request(quick=True, kinds="step,rounding", rules="Lion", shapes="gpt2").lines()
    assert {(line.kind, line.rule, line.shape) for line in named} == {
        ("step", "Lion", "gpt2"), ("rounding", "Lion", "large")
    }  # fmt: skip


def test_a_quick_run_measures_a_disturbed_line_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left = busy(monkeypatch, 0.5, 0.02, 0.0)
    request = Request(kinds="step", rules="Lion", shapes="tiny", options="plain,norm", quick=True, output=Path("out"))
    assert [result.busy_with_others for result in run_command(request, Console(quiet=True)).results] == [0.5, 0.02]
    assert left == [0.0]


def clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let each line take so long."""
    ticks = count(0.0, seconds)
    monkeypatch.setattr(time_left, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))


def test_what_does_not_fit_into_two_minutes_is_left_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, 60.0)
    done = bench("--quick", "--kinds", "step", "--rules", "Lion", "--shapes", "tiny,groups", "--output", "out")
    assert done.exit_code == 0, done.output
    assert re.search(r"^2/4 .*; about 5 s left$", done.stdout, re.MULTILINE)  # not two minutes more
    assert "Left out, to end within two minutes: step: groups, Lion; step: groups, Lion, clip by norm." in done.stdout
    [path] = Path("out").glob("*.json")
    assert [line["line"]["shape"] for line in json.loads(path.read_text())["lines"]] == ["tiny", "tiny"]
    clock(monkeypatch, 60.0)
    whole = bench("--kinds", "step", "--rules", "Lion", "--shapes", "tiny", "--rounds", "2", "--output", "out")
    assert "3/3 step: tiny, Lion, clip by value" in whole.stdout  # no run but a quick one leaves anything out
    assert "Left out" not in whole.stdout


def test_the_time_that_is_left_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, 60.0)
    arguments = ("--kinds", "step", "--rules", "Lion", "--shapes", "tiny", "--rounds", "2", "--output", "out")
    lines = bench(*arguments).stdout.splitlines()
    assert lines[0] == f"3 lines to measure, about {5 * round(3 * KINDS['step'].seconds / 5)} s left"
    first, second, last = (line for line in lines if re.match(r"\d/3 ", line))
    assert [re.search(r"; about (\d+) s left$", line) is not None for line in (first, second, last)] == [1, 1, 0]
    shown = io.StringIO()
    clock(monkeypatch, 60.0)
    run_command(
        Request(kinds="step", rules="Lion", shapes="tiny", rounds=2, output=Path("out")),
        Console(file=shown, force_terminal=True, width=120),
    )
    drawn = dict(re.findall(r"step: tiny, Lion(, clip by \w+)? .*?━.*? about (\d+) s left", shown.getvalue()))
    assert [*drawn] == ["", ", clip by norm", ", clip by value"]
    assert int(drawn[""]) < int(drawn[", clip by norm"])  # for a minute a line is more than was expected


def test_it_is_said_at_once_that_something_else_uses_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("--quick", "--kinds", "step", "--rules", "Lion", "--shapes", "tiny", "--output", "out")
    assert "Something else" not in bench(*arguments).stdout
    monkeypatch.setattr(machine, "busy_now", lambda: 1.62)
    first, second, *_ = bench(*arguments).stdout.splitlines()
    assert first.startswith("Something else uses 1.6 of ")
    assert second.startswith("2 lines to measure")


def test_who_is_busy_is_asked_while_this_process_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    seconds, slept = [(10.0, 3.0), (10.9, 3.1)], []
    monkeypatch.setattr(machine, "_processor_seconds", lambda: seconds.pop(0))
    ticks = iter([5.0, 5.5])
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: next(ticks), sleep=slept.append))
    assert machine.busy_now() == pytest.approx(0.8 / 0.5)
    assert slept == [0.5]


def test_the_file_holds_all_that_was_measured() -> None:
    report = quiet_run()
    [path] = Path("out").glob("*.json")
    assert path.name == f"{machine.file_name(report.device)}-part.json"
    assert Report.load(path) == report
    lines = json.loads(path.read_text())["lines"]
    assert [line["line"]["rule"] for line in lines] == ["Adam", "Adam", "Lion", "Lion"]
    [share, speed_up] = lines[0]["targets"]
    assert (share["figure"], share["at_least"]) == ("of the limit", 0.9)
    assert speed_up["met"] == (lines[0]["figures"]["speed-up"] >= 1.0)


def test_what_others_disturb_is_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    busy(monkeypatch, 0.5)
    done = bench("--kinds", "step", "--rules", "Lion", "--shapes", "tiny", "--rounds", "2", "--output", "out")
    assert done.exit_code == 0, done.output
    assert "Lion *" in done.stdout
    assert "(disturbed)" in done.stdout
    assert "not to be relied on" in done.stdout
    [path] = Path("out").glob("*.json")
    assert path.stem.endswith("-part-busy")
    assert json.loads(path.read_text())["lines"][0]["disturbed"]


def test_a_disturbed_line_is_measured_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    left = busy(monkeypatch, 0.5, 0.02, 0.9, 0.7, 0.04, 0.0)
    report = quiet_run()
    assert [result.busy_with_others for result in report.results] == [0.02, 0.7, 0.04, 0.0]
    assert [result.disturbed for result in report.results] == [False, True, False, False]
    assert left == [0.0]


def test_where_nobody_knows_who_is_busy_a_line_is_measured_once_and_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    left = busy(monkeypatch, None, None, None, None, 0.0)
    report = quiet_run()
    assert all(result.disturbed for result in report.results)
    assert left == [0.0]


def test_a_figure_is_drawn_again() -> None:
    quiet_run()
    [path] = Path("out").glob("*.json")
    drawn = path.with_suffix(".svg").read_bytes()
    path.with_suffix(".svg").unlink()
    done = bench("--plot-only", str(path))
    assert done.exit_code == 0, done.output
    assert "share of the memory limit" in done.stdout
    assert path.with_suffix(".svg").read_bytes() == drawn


def test_the_tables_tell_met_from_missed() -> None:
    line = Line("step", "Adam", "tiny")
    spread = {"median": 40e-6, "lower_quartile": 39e-6, "upper_quartile": 41e-6, "rounds": 9}
    result = Result(line, {"neon": spread}, {"seconds": 40e-6, "speed-up": 19.5}, {}, 0.0)
    console = Console(width=120, force_terminal=True, color_system="standard")
    with console.capture() as shown:
        for table in tables(Report({}, [result])):
            console.print(table)
    red, green = re.escape("\x1b[31m"), re.escape("\x1b[32m")
    text = shown.get()
    assert re.search(rf"{green} *40\b", text)
    assert re.search(rf"{red} *19.50x", text)
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert re.search(r"200 tensors of 64: against torch's best +≥ 20.00x +19.50x +19.50x +0 of 1", plain)
    assert re.search(r"200 tensors of 64: a step +≤ 50 µs +40 µs +40 µs +1 of 1", plain)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        report = run_command(
            Request(kinds="step", rules="Lion", shapes="tiny", options="plain", rounds=2, threads=1),
            Console(quiet=True),
        )
        assert report.device["torch_threads"] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rules", "Adm"], "rules has no 'Adm'. Did you mean 'Adam'?"),
        (["--rules", ""], "rules has no ''."),
        (["--shapes", "small"], "shapes has no 'small'."),
        (["--shapes", "xyz"], "Write some of large,resnet50,gpt2,llama1b,tiny,groups."),
        (["--options", "plain,nrm"], "options has no 'nrm'. Did you mean 'norm'?"),
        (["--kinds", "speed"], "kinds has no 'speed'."),
        (["--kinds", "start", "--rules", "Lion"], "nothing is left to measure"),
        (["--rounds", "1"], "rounds must be a whole number, at least 2; received 1"),
        (["--threads", "0"], "threads must be 1 to"),
        (["--threads", "100000"], "received 100000"),
        (["--output", "taken"], "cannot write to the output directory taken"),
        (["--plot-only", "absent.json"], "absent.json cannot be read as a result of neon bench"),
        (["--plot-only", "taken"], "taken cannot be read as a result of neon bench"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments: list[str], message: str) -> None:
    Path("taken").write_text("{}")
    refused = bench(*arguments)
    assert refused.exit_code == 2
    assert refused.stdout == ""
    assert refused.stderr.startswith("neon bench: ")
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_what_is_missing_is_named_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_compiler(_: object) -> None:
        raise RuntimeError("no C++ compiler\nat all")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", no_compiler)
        assert "--compiled needs torch.compile, and so a C++ compiler: no C++ compiler." in bench("--compiled").stderr
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused = bench()
    assert refused.exit_code == 2
    assert "the figure of neon bench needs matplotlib" in refused.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="There is a GPU.")
def test_a_device_that_is_not_there_is_refused() -> None:
    for name, message in (
        ("cuda", "torch finds no device 'cuda' here"),
        ("gpu", "one of cpu, cuda, xpu; received 'gpu'"),
    ):
        refused = bench("--device", name)
        assert refused.exit_code == 2
        assert message in refused.stderr
