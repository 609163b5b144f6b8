"""`benchmarks/host.py`: what callgrind's files say, where an instruction belongs, what is said where nothing counts."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
# Three functions. The first calls the second twice: what that took stands with the call too, and is not its own.
DUMP = """\
version: 1
desc: Trigger: Client Request: mlp, Adam/neon/2
events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw

ob=(1) /usr/lib/libpython3.11.so.1.0
fl=(1) ceval.c
fn=(1) _PyEval_EvalFrameDefault'2
10 100 30 10 5 4 3 2 1 1
cob=(2) ???
cfn=(2) 0x00000000054be000
calls=2 0
10 1000 9 9 9 9 9 9 9 9
+1 11

ob=(2)
fn=(2)
* 7 0 0 1

ob=(1)
fn=(3) PyDict_GetItem
-3 5
"""


@pytest.fixture(scope="module")
def host() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "benchmarks")
        yield importlib.import_module("host")


def test_what_a_call_took_is_told_where_it_was_spent(host: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "out.1").write_text(DUMP)
    (tmp_path / "out.2").write_text(DUMP.replace("Client Request: mlp, Adam/neon/2", "Program termination"))
    [profile] = host.callgrind.profiles(tmp_path)
    assert profile.label == "mlp, Adam/neon/2"
    assert {name: counts.values for name, counts in profile.functions.items()} == {
        ("libpython3.11.so.1.0", "_PyEval_EvalFrameDefault"): (111, 5, 7, 4),
        ("???", "0x00000000054be000"): (7, 1, 0, 0),
        ("libpython3.11.so.1.0", "PyDict_GetItem"): (5, 0, 0, 0),
    }


@pytest.mark.parametrize(
    ("file", "function", "place"),
    [
        ("libpython3.11.so.1.0", "_PyEval_EvalFrameDefault", "CPython: byte code"),
        ("python3.12", "_PyFunction_Vectorcall", "CPython: calls and frames"),
        ("libpython3.11.so.1.0", "_Py_dict_lookup", "CPython: attributes and dicts"),
        ("libpython3.11.so.1.0", "_PyObject_Malloc", "CPython: objects made and freed"),
        ("libpython3.11.so.1.0", "PyLong_FromLong", "CPython: the rest"),
        ("libtorch_python.so", "THPVariable_get_grad", "torch, Python's side"),
        ("libtorch_cpu.so", "aoti_torch_get_data_ptr", "torch, C++"),
        ("libtorch_cpu.so", "at::native::(anonymous namespace)::fused_adam_kernel(at::Tensor const&)", "kernels"),
        ("_multiarray_umath.cpython-311-x86_64-linux-gnu.so", "array_dealloc", "numpy"),
        ("libc.so.6", "malloc", "C library, loader"),
        ("???", "0x00000000054bd000", "kernels"),
        ("???", "0x00000000054d0000", "compiled by neon, no kernels"),
        ("???", "0x0000000004936728", "C library, loader"),  # far from all that neon has compiled
    ],
)
def test_each_function_has_its_place(host: ModuleType, file: str, function: str, place: str) -> None:
    compiled = {0x54BD350: True, 0x54D00D0: False}
    assert host.place_of(file, function, compiled) == place


def test_kernels_stand_apart_and_what_counting_takes_is_taken_off(host: ModuleType) -> None:
    counts, step, place = host.Counts, host.Step, "C library, loader"
    taken = step({("kernels", "k"): counts(900, 1, 2, 3), (place, "malloc"): counts(50, 5, 5, 5)})
    less = host._less(taken, step({(place, "malloc"): counts(10, 1, 1, 1), (place, "free"): counts(3)}))
    assert less.total(kernels=True).values == (900, 1, 2, 3)
    assert less.total(kernels=False).values == (40, 4, 4, 4)
    assert "| C library, loader | 40 | 100% | 4 | 4 | 4 |" in host.markdown(less, {})


def test_the_table_of_the_page_can_be_written_anew(
    host: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert host.PAGE.read_text(encoding="utf-8").count(host.BEGIN) == 1
    page = tmp_path / "page.md"
    page.write_text(host.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(host, "PAGE", page)
    for table in ("| a |", "| b |"):
        host.store(table)
    text = page.read_text(encoding="utf-8")
    assert f"{host.BEGIN}\n\n| b |\n\n{host.END}" in text
    assert "| a |" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": False}, "nothing can be counted: there is no valgrind"),
        ({"store": True}, "nothing can be counted: there is no valgrind"),
        ({"cases": "mpl"}, "no case has 'mpl' in its name. Cases: mlp, SGD; "),
        ({"build": Path("/nowhere")}, "/nowhere is no checkout of neon"),
    ],
)
def test_what_cannot_be_done_is_said(
    host: ModuleType, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(host.callgrind.platform, "machine", lambda: "x86_64")
    given = {"cases": "", "build": None, "rounds": 2, "times": True, "functions": False, "most": 3, "store": False}
    with pytest.raises(host.SettingsError, match=message):
        host.main(SimpleNamespace(**given | arguments))


def test_without_valgrind_there_are_times(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks/host.py"), "--cases", "mlp, Adam", "--rounds", "2"]
    done = subprocess.run(
        [*command, "--build", str(ROOT)],
        env={**os.environ, "PATH": str(tmp_path), "PYTHONPATH": str(ROOT), "COLUMNS": "150"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, *rest = done.stdout.splitlines()
    assert first.startswith("Times alone: ")
    for whose in ("neon of --build", "torch, fused", "torch, foreach"):
        assert re.search(rf"{whose} .* \d+\.\d +\d\.\d\d *$", "\n".join(rest), re.MULTILINE)


def test_what_is_counted_runs_in_every_kind_of_case() -> None:
    """Without valgrind, which would take minutes: its requests do nothing then."""
    cases = ["conv, SGD", "200 tensors, Adam", "500 groups, Adam"]
    command = [sys.executable, str(ROOT / "benchmarks/host_steps.py"), "count", json.dumps(cases), '["neon"]']
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(json.loads(done.stdout).values()) == [False, False, True, True]  # watch, steady step, two kernels
