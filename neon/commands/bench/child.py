"""Measurements that need a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

import neon


def run(module: str, *arguments: str, **environment: str) -> str:
    """What ``python -m module arguments`` prints, with this neon and this number of threads."""
    path = os.pathsep.join(filter(None, [str(Path(neon.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    variables = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(torch.get_num_threads()), **environment}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(  # noqa: S603
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **variables}
    )
    return done.stdout
