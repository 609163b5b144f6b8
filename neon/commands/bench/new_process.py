"""Measurements that need a process of their own: its first step, and a peak of memory that nothing else raised."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch

import neon
from neon.commands import machine
from neon.commands.bench.results import Line, Result, Settings
from neon.commands.bench.tensor_shapes import SHAPES
from neon.commands.bench.timing import Turn

ROUNDS = 5
CONTENDERS = {"empty cache": "neon", "filled cache": "neon", "torch": "torch"}


def run(module: str, *arguments: str, **environment: str) -> str:
    """What ``python -m module arguments`` prints, with this neon and this number of threads."""
    path = os.pathsep.join(filter(None, [str(Path(neon.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    variables = {"PYTHONPATH": path, "OMP_NUM_THREADS": str(torch.get_num_threads()), **environment}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(  # noqa: S603
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **variables}
    )
    return done.stdout


def measure_memory(line: Line, _: Settings) -> Result:
    """Bytes a parameter that raise the peak of a process; what is kept, in one that gives back what it frees."""
    watch, side = machine.Watch(), SHAPES[line.shape].tensors[0][0]
    environment = {"MALLOC_MMAP_THRESHOLD_": "65536"} if line.kind == "kept" else {}
    found = run("neon.commands.bench.memory", line.kind, line.rule, str(side), **environment)
    return Result(line, {}, json.loads(found), {}, watch.busy_with_others())


def measure_start(line: Line, settings: Settings) -> Result:
    """The first step, with an empty and with a filled kernel cache.

    In each round there is a new cache: the first process fills it, the second finds it filled.
    """
    turns: dict[str, list[Turn]] = {name: [] for name in CONTENDERS}
    first_step = partial(run, "neon.commands.bench.first_step")
    first_step("torch", line.rule)  # brings torch's files into memory
    watch = machine.Watch()
    with tempfile.TemporaryDirectory(prefix="neon-bench-") as folder:
        for number in range(settings.rounds or ROUNDS):
            cache = str(Path(folder, str(number)))
            for name, who in CONTENDERS.items():
                seconds = float(first_step(who, line.rule, NEON_CACHE_DIR=cache))
                turns[name].append(Turn(seconds, seconds))
    result = Result.of(line, turns, watch.busy_with_others())
    result.figures.update({name: result.medians[name] for name in ("empty cache", "filled cache")})
    return result
