"""What generated sources need of numba: the same machine code as by all of it, without loading that."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lowered_kernels import SOURCES, kernel_of

from neon.engine.backends.numba import source
from neon.engine.native import lean_numba, machine_code

# Plain, sums, blocks, random bits, rows and columns, and what sources call of their own.
KERNELS = ["adam", "adafactor", "adam_int8", "adam_every_option", "lion", "prodigy", "shiftadamax"]


def assembly(text: str, how: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(
        machine_code, "_results", lambda functions: [how(each, *machine_code._signature(each)) for each in functions]
    )
    stages = len(re.findall(r"^def stage_\d+", text, re.MULTILINE))
    return re.sub(r"_ZN\w+", "a function", machine_code.assembly(text, Path("kernel.py"), stages))


@pytest.mark.parametrize("name", KERNELS)
def test_machine_code_is_that_of_all_of_numba(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = source(kernel_of(*SOURCES[name]))
    lean = assembly(text, lean_numba.compiled, monkeypatch)
    assert lean == assembly(text, machine_code._compile, monkeypatch)
    assert "stage_0" in lean


PROGRAM = """
import sys
import torch
from neon.optimizers import Adam

w = torch.nn.Parameter(torch.ones(4))
w.grad = torch.ones(4)
Adam().attach([w]).step()
loaded = [name for name in ("numba", "numba.np.linalg", "numba.np.arrayobj", "scipy.linalg") if name in sys.modules]

import numba
import numpy as np

@numba.njit
def product(a, b):
    return a @ b.T + np.linalg.norm(a)

print(loaded, product(np.eye(2), np.ones((2, 2))).sum() == 4 + 4 * 2**0.5)
"""


def test_a_process_loads_no_more_and_numba_stays_whole(tmp_path: Path) -> None:
    environment = {**os.environ, "NEON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.stdout == "['numba'] True\n", done.stderr


def test_what_is_to_be_collected_waits_for_imports() -> None:
    program = (
        "import gc, torch\ngenerations = []\n"
        "gc.callbacks.append(lambda phase, info: generations.append(info['generation']))\n"
        "import neon.{0}\nassert gc.isenabled()\nprint(generations.count(2))"
    )
    for module in ("optimizers", "torch"):
        done = subprocess.run(
            [sys.executable, "-c", program.format(module)], capture_output=True, text=True, timeout=100, check=False
        )
        assert done.stdout == "0\n", done.stderr
