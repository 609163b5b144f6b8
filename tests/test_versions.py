"""What differs between versions of torch, and the tool that runs the tests with chosen ones."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest
import torch

import neon.torch
from neon.engine import versions
from neon.optimizers import Adam

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TOOL = ROOT / "tools/versions"


@pytest.fixture(scope="module")
def tool() -> Any:
    spec = importlib.util.spec_from_loader("versions_tool", SourceFileLoader("versions_tool", str(TOOL)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "dont_write_bytecode", True)
        spec.loader.exec_module(module)
    return module


# -- torch -----------------------------------------------------------------------------------------


def test_without_dynamos_interior_a_function_is_still_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._dynamo

    def compiling() -> bool:
        return torch.compiler.is_compiling()

    monkeypatch.delattr(torch._C._dynamo.eval_frame, "_FrameExecStrategy")
    disabled = versions.uncompiled(compiling)
    monkeypatch.undo()
    for function, expected in ((compiling, True), (disabled, False)):
        compiled = torch.compile(lambda x, function=function: (x + 1, function()), backend="eager")
        assert compiled(torch.ones(1))[1] is expected


def test_a_question_that_torch_does_not_know_is_not_asked() -> None:
    assert versions.questions(["get_data_ptr"])
    assert versions.questions(["get_data_ptr", "get_weather"]) is None


@pytest.mark.parametrize("kind", [set, frozenset])
@pytest.mark.parametrize("make", [Adam().attach, neon.torch.AdamW, neon.torch.SGD])
def test_a_set_of_parameters_is_warned_of_where_it_is_given(make: Callable[..., Any], kind: type) -> None:
    with pytest.warns(FutureWarning, match=f"are a {kind.__name__}, whose order changes.*Give a list") as caught:
        make(kind([torch.nn.Parameter(torch.ones(2))]))
    assert [warning.filename for warning in caught] == [__file__]


# -- the tool --------------------------------------------------------------------------------------


def test_the_lowest_are_all_lower_bounds(tool: Any) -> None:
    lines = tool.chosen([], lowest=True)
    bounds = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["compare"]]
    assert {*lines} > {bound.replace(">=", "==") for bound in bounds}
    assert all(re.match(r"[\w-]+==\d+(\.\d+)*(;|$)", line) for line in lines)
    assert {"pytest", "triton"} < {*map(tool.name, lines)}


def test_what_is_given_goes_before_the_lowest(tool: Any) -> None:
    lines = tool.chosen(["Torch==2.12.0", "numpy<2.4"], lowest=True)
    assert lines[:2] == ["Torch==2.12.0", "numpy<2.4"]
    names = [*map(tool.name, lines)]
    assert len(names) == len({*names}) == len(tool.needed())
    assert tool.chosen(["numpy<2.4"], lowest=False) == ["numpy<2.4"]


def test_tests_are_counted(tool: Any, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): pass\ndef test_c(): assert False\n"
        "@pytest.fixture\ndef broken(): raise ValueError\ndef test_d(broken): pass\n"
        "def test_e(): pytest.skip('no')\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=results.xml", "test_it.py"]
    subprocess.run(command, cwd=tmp_path, check=False, capture_output=True)
    assert tool.counted(tmp_path / "results.xml") == (2, 2, 1)


def test_what_cannot_be_installed_ends_it(tool: Any) -> None:
    with pytest.raises(SystemExit, match=r"This failed: .* exit\(3\)"):
        tool.call(sys.executable, "-c", "exit(3)")


# -- the page --------------------------------------------------------------------------------------


def rows() -> list[list[str]]:
    """The table of docs/versions.md: Python, torch, Triton, numpy, numba, llvmlite, passed, failed, skipped."""
    lines = (ROOT / "docs/versions.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| \d", line)]
    assert cells
    return cells


def test_nothing_failed_that_is_on_the_page() -> None:
    assert all(len(row) == 9 and int(row[6]) > 5000 and row[7] == "0" for row in rows())


@pytest.mark.parametrize(
    ("column", "package"), [(1, "torch"), (2, "triton"), (3, "numpy"), (4, "numba"), (5, "llvmlite")]
)
def test_lower_bounds_were_run(tool: Any, column: int, package: str) -> None:
    [bound] = [line for line in tool.needed() if tool.name(line) == package]
    lowest = min(tuple(map(int, row[column].split("+")[0].split("."))) for row in rows())
    wanted = tuple(map(int, re.findall(r"\d+", bound.partition(";")[0])))
    assert lowest[: len(wanted)] == wanted


def test_each_python_of_the_classifiers_was_run() -> None:
    named = {line.rsplit(" ", 1)[1] for line in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", line)}
    assert {row[0].rpartition(".")[0] for row in rows()} == named
    assert PROJECT["requires-python"] == f">={min(named, key=lambda version: int(version.split('.')[1]))}"
