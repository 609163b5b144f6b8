"""What a benchmark says of the machine it ran on, and who else used it meanwhile."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import neon

LINUX = sys.platform == "linux"


def device(name: str = "cpu") -> dict[str, Any]:
    """The processor by model, its vector units and last cache, the number of cores, versions; of a GPU, its name."""
    text = Path("/proc/cpuinfo").read_text() if LINUX else ""
    fields = dict(re.findall(r"^([^\t:]+?)\s*: (.*)$", text, re.MULTILINE))
    numbers = [fields[key] for key in ("cpu family", "model", "stepping") if key in fields]
    units = re.compile(r"avx2|avx512f|avx512_(bf16|fp16)|amx_.*|sve.*")
    processor = fields.get("model name", platform.processor() or platform.machine())
    return {
        "processor": processor if name == "cpu" else f"{getattr(torch, name).get_device_name()} at {processor}",
        "family_model_stepping": "-".join(numbers),
        "vector_units": [flag for flag in fields.get("flags", "").split() if units.fullmatch(flag)],
        "last_cache": fields.get("cache size", "unknown"),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {"neon": neon.__version__, **{name: version(name) for name in ("torch", "numba", "numpy")}},
    }


def file_name(machine: dict[str, Any]) -> str:
    """A device as a name for a file: intel-xeon-processor-6-167-1-2cores."""
    name = f"{machine['processor']} {machine['family_model_stepping']} {machine['cores']}cores".lower()
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name)).strip("-")


class Watch:
    """Counts, from its making on, the processors that something else uses."""

    def __init__(self) -> None:
        self._start, self._before = time.perf_counter(), _processor_seconds()

    def busy_with_others(self) -> float | None:
        """How many processors, on average, were busy with something else; None where nobody knows."""
        wall, after = time.perf_counter() - self._start, _processor_seconds()
        if self._before is None or after is None:
            return None
        return max(0.0, (after[0] - self._before[0]) - (after[1] - self._before[1])) / wall


def busy_now(seconds: float = 0.5) -> float | None:
    """How many processors something else uses, watched for so long while this process sleeps; None: nobody knows."""
    watch = Watch()
    time.sleep(seconds)
    return watch.busy_with_others()


def _processor_seconds() -> tuple[float, float] | None:
    """Processor time so far, of everything on this machine and of this process with its children; Linux only."""
    if not LINUX:
        return None
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    everything = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return everything, sum(os.times()[:4])


def resident_bytes(field: str) -> int:
    """`VmRSS`, the memory resident now, or `VmHWM`, its peak; Linux only."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def forget_peak() -> None:
    """Let `VmHWM` start again from what is resident now; Linux only."""
    Path("/proc/self/clear_refs").write_text("5")
