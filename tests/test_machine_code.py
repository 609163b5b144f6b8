"""Machine code: what it depends on, what is kept of it, and what happens to a source that is wrong."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numba.core.codegen
import numba.core.compiler
import pytest
from numba.core.errors import TypingError

from neon.engine.native import cache, machine_code

COUNTS = """
from neon.engine.backends.numba_intrinsics import take_next

def stage_0(context):
    take_next(context)

def stage_1(context):
    for _ in range(5):
        take_next(context)
"""

# The array is memory that numba's own runtime hands out.
NEEDS_NUMBA = """
import numpy as np
from neon.engine.backends.numba_intrinsics import take_next

def stage_0(context):
    take_next(context)

def stage_1(context):
    many = np.ones(take_next(context) + 1000)
    for _ in range(int(many.sum()) % 1000 + 4 - take_next(context)):
        take_next(context)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, in use, with nothing in it."""
    monkeypatch.setenv("NEON_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that have been compiled since."""
    names: list[str] = []
    compile_extra: Callable[..., Any] = numba.core.compiler.compile_extra

    def spy(*args: Any, **kwargs: Any) -> Any:
        names.extend(name for name in [args[2].__name__] if name.startswith("stage_"))
        return compile_extra(*args, **kwargs)

    monkeypatch.setattr(numba.core.compiler, "compile_extra", spy)
    return names


def endings(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.rglob("*") if path.is_file())


def count(code: machine_code.Code, stage: int) -> int:
    calls = ctypes.c_int64(0)
    code.functions[stage](ctypes.addressof(calls))
    return calls.value


# -- what it depends on ----------------------------------------------------------------------------

INPUTS: dict[str, tuple[Any, str, Any]] = {
    "processor": (llvm, "get_host_cpu_name", lambda: "another"),
    "its features": (llvm, "get_host_cpu_features", lambda: llvm.FeatureMap(avx=False)),
    "system": (llvm, "get_process_triple", lambda: "x86_64-another-system"),
    "neon": (machine_code.neon, "__version__", "0"),
    "numba": (machine_code.metadata, "version", lambda _: "0"),
    "llvmlite": (machine_code.llvmlite, "__version__", "0"),
    "numpy": (machine_code.np, "__version__", "0"),
    "python": (sys, "version", "0"),
    "our own code": (machine_code, "_OWN", (Path(__file__),)),
}


@pytest.mark.parametrize("what", INPUTS)
def test_code_belongs_to_one_environment(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = machine_code.environment.__wrapped__
    before = environment()
    assert environment() == before
    monkeypatch.setattr(*INPUTS[what])
    assert environment() != before


def test_settings_of_numba_belong_to_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    before = machine_code.environment.__wrapped__()
    monkeypatch.setenv("NUMBA_OPT", "1")
    assert machine_code.environment.__wrapped__() != before


def test_a_processor_whose_features_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> None:
        raise RuntimeError("failed to get host cpu features")

    before = machine_code.environment.__wrapped__()
    monkeypatch.setattr(llvm, "get_host_cpu_features", unknown)
    assert machine_code.environment.__wrapped__() != before


# -- compilation -----------------------------------------------------------------------------------


def test_stages_share_an_object_that_is_kept(folder: Path, compiled: list[str]) -> None:
    for _ in range(2):
        code = cache.load("counts", COUNTS, 2)
        assert [count(code, stage) for stage in (0, 1)] == [1, 5]
    assert compiled == ["stage_0", "stage_1"]
    assert endings(folder) == [".o", ".py"]


def test_code_can_be_read() -> None:
    text = machine_code.assembly(COUNTS, Path("counts.py"), 2)
    assert all(word in text for word in ("stage_0", "stage_1"))
    assert not any(word in text for word in ("NRT_", "numba_gil", "PyErr"))


WRONG = {
    "def stage_0(at):\n    absent()\n": (TypingError, 2),  # by what sources need of numba, and by all of it
    "def stage_0(at):\n    absent(\n": (SyntaxError, 0),
    "@absent\ndef stage_0(at):\n    pass\n": (NameError, 0),
}


@pytest.mark.parametrize("source", WRONG)
def test_a_wrong_source_is_tried_once_by_each_compiler(source: str, folder: Path, compiled: list[str]) -> None:
    error, times = WRONG[source]
    with pytest.raises(error, match=r"absent|never closed"):
        cache.load("wrong", source, 1)
    assert compiled == ["stage_0"] * times
    assert not endings(folder)


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_held_back_only_meanwhile(enabled: bool, folder: Path) -> None:
    (gc.enable if enabled else gc.disable)()
    try:
        cache.load("counts", f"{COUNTS}\nimport gc\nassert not gc.isenabled()\n", 2)
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_code_that_needs_numba_is_left_to_numba(folder: Path) -> None:
    code = cache.load("allocates", NEEDS_NUMBA, 2)
    assert [count(code, stage) for stage in (0, 1)] == [1, 5]
    assert not endings(folder)


CHANGED = [
    (llvm.TargetMachine, "emit_object"),
    (llvm, "create_lljit_compiler"),
    (numba.core.codegen.CPUCodegen, "magic_tuple"),
]


@pytest.mark.parametrize(("owner", "name"), CHANGED)
def test_a_numba_that_has_changed_still_serves(
    owner: Any, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(*args: Any, **kwargs: Any) -> None:
        raise TypeError("takes other arguments now")

    machine_code._linker.cache_clear()
    monkeypatch.setattr(owner, name, changed)
    code = cache.load("counts", COUNTS, 2)
    assert [count(code, stage) for stage in (0, 1)] == [1, 5]
    assert not endings(folder)
