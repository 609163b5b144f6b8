"""`benchmarks/gpu.sh` and what it runs, rehearsed: what is started on a GPU has been run before."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from other_versions import needs_interpreter

from neon.engine import use_backend
from neon.engine.backends import triton_launch

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "benchmarks/gpu.sh"
pytestmark = needs_interpreter


@pytest.fixture(scope="module")
def gpu() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("gpu")


@pytest.fixture(scope="module")
def gpu_run(gpu: Any) -> Any:
    return sys.modules[gpu.Run.__module__]


@pytest.fixture
def run(gpu: Any, tmp_path: Path) -> Any:
    return gpu.Run(tmp_path, time.time() + 100, rehearse=True)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (out / "gpu.jsonl").read_text().splitlines()]


def rehearse(out: Path, *arguments: str) -> str:
    command = ["sh", SCRIPT, *arguments, "--rehearse", out]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_a_rehearsal_writes_every_kind_of_result(tmp_path: Path) -> None:
    steps = "AdamW (plain|norm), float32, large|grid, tile 512.* float32, large"
    chosen = f"probe|copy|launches|graph|tensor rates|scaler|Muon, float32, 768x3072|{steps}"
    printed = rehearse(tmp_path, "--seconds", "300", "--cases", chosen)
    results = {line["case"]: line for line in lines(tmp_path) if "case" in line}
    assert not [line for line in results.values() if "error" in line]
    assert results["probe"]["elements unlike eager's"] == 0
    step = results["AdamW norm, float32, large"]
    assert step["launches"] == 4
    assert step["unlike torch, of an update"] < 1e-4
    assert {*step["device_s"]} == {"neon", "fused", "foreach", "copy"}
    assert {*results["launches, large"]["device_s"]} >= {"stage_0", "sum_up", "numbers_1", "stage_1"}
    assert "grid, tile 512, part 8192, 4 warps, float32, large" in results
    muon = results["Muon, float32, 768x3072"]
    assert muon["launches"] > 0
    assert {*muon["device_s"]} == {"neon", "torch"}
    assert 0 < muon["neon's error"] < 1.1 * muon["torch's error"]
    table = (tmp_path / "table.md").read_text()
    assert all(f"| {name} |" in table and f"| {name} |" in printed for name in results)
    assert "| clip by norm, of plain ≤ 1.2 |" in table.partition("| case |")[0]
    assert table.partition("| case |")[0] in printed
    assert {"log.txt", "gpu.jsonl", "table.md"} <= {path.name for path in tmp_path.iterdir()}


def test_what_there_is_no_time_for_is_named(tmp_path: Path) -> None:
    printed = rehearse(tmp_path, "--seconds", "0", "--cases", "copy|AdamW plain, float32, large")
    assert "Left out for want of time: copy; AdamW plain, float32, large." in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seconds"], "--seconds needs a value"),
        (["--seconds", "a minute", "out"], "--seconds needs a whole number, not a minute"),
        (["--wheels", "nowhere", "out"], "nowhere"),
        (["one", "two"], "There can be one OUT: one or two"),
        (["--fast", "out"], "There is no option --fast"),
        ([], "Say where the results are to go: OUT"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    done = subprocess.run(["sh", SCRIPT, *options], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr
    assert not [*tmp_path.iterdir()]


def test_a_process_that_fails_at_once_goes_on_with_no_earlier_results(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/gpu.jsonl").write_text('{"begun": "copy"}\n')
    (tmp_path / "python").write_text("#!/bin/sh\n[ $1 = - ] && exit 0\necho failed\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    own = os.environ | {"PYTHON": str(tmp_path / "python")}
    done = subprocess.run(["sh", SCRIPT, "out"], cwd=tmp_path, capture_output=True, text=True, env=own)
    assert done.returncode == 1
    assert done.stdout == "failed\n"


def test_a_case_that_raises_leaves_its_error_and_the_next_is_measured(gpu: Any, run: Any, capsys: Any) -> None:
    def fails(run: Any) -> dict[str, Any]:
        raise ValueError("of a kind\nin two lines")

    cases = [gpu.Case("first", fails), gpu.Case("second", lambda run: {"figure": 1.5})]
    assert gpu.measure_all(run, cases, gpu.targets) == 0
    assert run.results()["first"]["error"] == "ValueError: of a kind\nin two lines"
    assert "| first | ValueError: of a kind | | | |" in capsys.readouterr().out
    assert run.results()["second"]["figure"] == 1.5


def test_after_a_lost_device_another_process_goes_on(gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [gpu.Case(name, lambda run: {"figure": 1}) for name in ("first", "second", "third")]
    with (tmp_path / "gpu.jsonl").open("w") as file:
        file.write('{"begun": "first"}\n{"case": "fir')
    run = gpu.Run(tmp_path, time.time() + 100, rehearse=True)

    def lost() -> None:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(run, "synchronize", lost)
    assert gpu.measure_all(run, cases, gpu.targets) == 3
    assert {*run.results()} == {"first", "second"}
    monkeypatch.undo()
    assert gpu.measure_all(run, cases, gpu.targets) == 0
    assert run.results()["first"]["error"] == "the process ended while this was measured"
    assert {name for name, line in run.results().items() if "error" not in line} == {"second", "third"}


def test_steps_that_triton_does_not_make_are_refused(gpu: Any, run: Any) -> None:
    with use_backend("eager"), pytest.raises(RuntimeError, match="no Triton kernel made this step"):
        gpu.measure_step(run, "large", "float32", "AdamW", "plain")


@pytest.mark.parametrize(("bound", "met"), [(0.8, "1 of 1"), (0.95, "0 of 1")])
def test_targets_are_judged(gpu: Any, gpu_run: Any, run: Any, bound: float, met: str) -> None:
    step = {"shape": "large", "format": "float32", "rule": "Adam", "of_copy": 0.9, "times": {"fused": 1.1, "copy": 0.5}}
    plain = {**step, "option": "plain", "device_s": {"neon": 1.0}, "host_s": {}, "case": "Adam plain, float32, large"}
    norm = {**plain, "option": "norm", "device_s": {"neon": 1.3}, "case": "Adam norm, float32, large"}
    found = {t.what: (t.value, t.met) for t in gpu.targets(norm, {plain["case"]: plain})}
    copy, fused, clip = "of a copy's bandwidth", "times torch's fused", "clip by norm, of plain"
    assert found == {copy: (0.9, True), fused: (1.1, True), clip: (1.3, False)}
    run.write(**plain)
    text = gpu_run.table(run, lambda line, results: iter([gpu.Target("of", bound, line["of_copy"])]), [])
    assert f"| of ≥ {bound:g} | {met} | 0.9 (Adam plain, float32, large) |" in text


def test_the_device_is_asked_as_torch_has_it(gpu: Any, gpu_run: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a rehearsal leaves out: events, the pause before them, a graph, what the card is."""
    called: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            called.append("record")

        def synchronize(self) -> None: ...

        def elapsed_time(self, other: Event) -> float:
            return 30.0

    class Within:
        def __init__(self, *arguments: Any, stream: Any = None) -> None: ...

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

        def wait_stream(self, stream: Any) -> None: ...

    known = dict.fromkeys(dir(torch.cuda))
    stand_ins = {
        "synchronize": lambda: None,
        "empty_cache": lambda: None,
        "Event": Event,
        "_sleep": lambda cycles: called.append(f"pause {cycles}"),
        "Stream": Within,
        "stream": Within,
        "graph": Within,
        "current_stream": Within,
        "CUDAGraph": lambda: SimpleNamespace(replay="replay"),
        "get_device_properties": lambda device: SimpleNamespace(
            name="a card", major=9, minor=0, total_memory=1, multi_processor_count=2
        ),
    }
    assert {*stand_ins} <= {*known}
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(gpu, "serving", lambda device: SimpleNamespace(name="triton"))
    run.rehearse = False
    assert run.device_time(lambda: called.append("step"), 2, 0.001) == pytest.approx(0.015)
    assert called == ["pause 2000000", "record", "step", "step", "record"]
    assert run.measure({"a": lambda: None, "b": lambda: None})["device_s"]["b"] == pytest.approx(0.03)
    assert gpu.captured(run, lambda: called.append("captured")) == "replay"
    assert called.count("captured") == 4
    assert gpu.probe(run) == {"elements unlike eager's": 0}
    run.forget()
    assert not gpu_run.is_lost(run)
    run.write(case="x")
    assert gpu_run.table(run, gpu.targets, []).startswith("# a card\n")


def test_other_sizes_of_kernels_are_left_as_they_were(gpu: Any) -> None:
    before = triton_launch.TILE, triton_launch.PART, triton_launch.LAUNCH
    assert gpu.OWN not in gpu.GRID
    with gpu.kernels_of(512, 4096, 8):
        assert (512, 4096, {**before[2], "num_warps": 8}) == (
            triton_launch.TILE,
            triton_launch.PART,
            triton_launch.LAUNCH,
        )
    assert before == (triton_launch.TILE, triton_launch.PART, triton_launch.LAUNCH)


def test_every_kind_of_step_is_measured_once(gpu: Any) -> None:
    names = [case.name for case in gpu.cases()]
    assert len(names) == len({*names})
    steps = {f"{r} {o}, {f}, {s}" for r in gpu.RULES for o in gpu.OPTIONS for f in gpu.FORMATS for s in gpu.SHAPES}
    assert steps <= {*names}
    assert len(steps) == 120
    assert names[2:4] == ["AdamW plain, float32, large", "AdamW plain, float32, gpt2"]


FAKE_TESTS = """
import logging, os, pytest

@pytest.mark.parametrize("number", range(4))
def test_it(number):
    if number == 1:
        logging.getLogger("a").error("adam, all, int8, step 1: 7 of 8 differ")
        assert 1 == 2
    if number == 2:
        os._exit(1)

def test_last():
    pass
"""
LOSES_THE_DEVICE = """
import pytest

lost = []

@pytest.fixture(autouse=True)
def device():
    if lost:
        pytest.exit("the device is lost", returncode=3)

@pytest.mark.parametrize("number", range(3))
def test_it(number):
    if number == 1:
        lost.append(True)
        raise RuntimeError("an illegal memory access was encountered")
"""


@pytest.mark.parametrize(
    ("text", "passed", "wrong"),
    [(FAKE_TESTS, 3, ["test_it[1]", "test_it[2]"]), (LOSES_THE_DEVICE, 2, ["test_it[1]"])],
    ids=["a process that ends", "a device that is lost"],
)
def test_tests_go_on_in_another_process(
    gpu: Any, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, passed: int, wrong: list[str]
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/test_gpu.py").write_text(text)
    monkeypatch.setattr(sys.modules[gpu.run_tests.__module__], "ROOT", tmp_path)
    found = gpu.run_tests(run)
    assert found["PASSED"] == passed
    assert found["wrong"] == wrong
    assert found["all run"]
    assert found["differences"] == ["adam, all, int8, step 1: 7 of 8 differ"] * ("logging" in text)


def test_launches_hand_over_what_a_gpu_takes() -> None:
    """Through Triton's own launch, at the first step, and past it, at the others."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = f"{ROOT}:{ROOT / 'tests'}"
    command = [sys.executable, ROOT / "tests/triton_launched.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 6
    for line in found:
        assert {*line["launches"].values()} == {line["steps"]} == {4}, line
        functions = {name.partition(".")[2] for name in line["launches"]}
        plain, clipped = {"numbers_0", "stage_0"}, {"stage_0", "sum_up", "numbers_1", "stage_1"}
        assert functions == (plain if line["case"][1] == "plain" else clipped)
        assert all(stack == 0 for _, stack in line["resources"].values()), line
