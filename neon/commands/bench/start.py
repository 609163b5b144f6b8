"""The first step in a new process, with an empty and with a filled kernel cache."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from neon.commands import machine
from neon.commands.bench import child
from neon.commands.bench.lines import Line, Settings
from neon.commands.bench.timing import Measured

ROUNDS = 5
CONTENDERS = {"empty cache": "neon", "filled cache": "neon", "torch": "torch"}


def measure_start(line: Line, settings: Settings) -> Measured:
    """In each round a new cache: the first process fills it, the second finds it filled."""
    seconds: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    first_step = partial(child.run, "neon.commands.bench.first_step")
    first_step("torch", line.rule)  # brings torch's files into memory
    watch = machine.Watch()
    with tempfile.TemporaryDirectory(prefix="neon-bench-") as folder:
        for number in range(settings.rounds or ROUNDS):
            cache = str(Path(folder, str(number)))
            for name, who in CONTENDERS.items():
                seconds[name].append(float(first_step(who, line.rule, NEON_CACHE_DIR=cache)))
    measured = Measured(seconds, watch.busy_with_others())
    medians = measured.medians
    measured.figures.update({name: medians[name] for name in ("empty cache", "filled cache")})
    return measured
