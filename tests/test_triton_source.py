"""The source of the GPU's kernels: stored, a file to read, and what it compiles to for an H100."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from weakref import WeakKeyDictionary

import pytest
import torch
from lowered_kernels import SOURCES, check_stored, kernel_of
from other_versions import needs_interpreter
from state_tensors import new, trained

from neon.engine.backends import triton_source
from neon.engine.program import trace
from neon.optimizers import Optimizer

pytestmark = [needs_interpreter, pytest.mark.usefixtures("one_thread")]
STORED = Path(__file__).parent / "kernels" / "triton"


@pytest.mark.parametrize("name", SOURCES)
def test_source_is_the_stored_one(name: str) -> None:
    check_stored(triton_source.source(kernel_of(*SOURCES[name])), STORED / f"{name}.txt")


class Shrinking(Optimizer):
    """A rule that no other test compiles."""

    @staticmethod
    def rule(w, g, *, lr=0.01):  # type: ignore[no-untyped-def]
        return w * 0.75 - lr * g


def test_source_is_a_file_to_read_where_there_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    for place, files in (("cache", 1), ("taken", 0)):
        monkeypatch.setenv("NEON_CACHE_DIR", str(tmp_path / place))
        monkeypatch.setattr(trace, "_made", WeakKeyDictionary())
        [param] = trained("triton", new(300), Shrinking(), steps=1)[:1]
        [expected] = trained("eager", new(300), Shrinking(), steps=1)[:1]
        assert torch.equal(param, expected)
        found = [*(tmp_path / place).rglob("*.py")]
        assert len(found) == files
    [path] = (tmp_path / "cache").rglob("*.py")
    text = path.read_text(encoding="utf-8")
    assert re.search(r"^w ← .*w \* 0\.75", text, re.M)
    assert "def stage_0(" in text


def test_kernels_compile_for_a_gpu() -> None:
    """To the instructions of an H100, by a process that does not interpret: in 16 bytes where memory is aligned."""
    program = Path(__file__).with_name("triton_compiled.py")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    run = subprocess.run([sys.executable, program], check=True, env=environment, capture_output=True, text=True)
    found = {name: json.loads(counts) for name, counts in re.findall(r"^(.+): (\{.*\})$", run.stdout, re.M)}
    assert len(found) == 28
    # A whole tile of 1024 float32 in 128 threads is two accesses of 16 bytes for each tensor, of bfloat16 one.
    assert found["adam stage 1, aligned"]["ld.global.v4.b32"] == 8
    assert found["adam stage 1, aligned"]["st.global.v4.b32"] == 6
    assert "ld.global.v4.b32" not in found["adam stage 1"]
    assert found["bfloat16 stage 0, aligned"]["ld.global.v4.b32"] == 4
    for counts in found.values():
        assert not any(name.startswith("fma.rn.f32") for name in counts)  # an operation is rounded when it is written
        assert not any(name.startswith(("div.full", "div.approx", "sqrt.approx")) for name in counts)
        assert not any(".ftz" in name for name in counts)  # nor are the smallest numbers taken for zero
