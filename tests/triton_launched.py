"""A program that steps as on an H100 without having one: kernels are compiled and launched, and nothing is run.

    python tests/triton_launched.py            # Adam in three formats: registers and stack of each kernel
    python tests/triton_launched.py lion shift # other rules of `rule_cases`

Triton takes a driver that checks what each launch hands over: an argument for every parameter of the kernel, constants
included, and tensors or addresses where it reads pointers. Specialization and cache are Triton's own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

from neon.engine import use_backend

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
launches: Counter[str] = Counter()
resources: dict[str, tuple[int, int]] = {}


class Launcher:
    """Takes the place of what hands a kernel to the device."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self.name = f"{source.fn.__module__.rpartition('.')[2]}.{metadata.name}"
        self.signature = dict(source.signature)

    def __call__(self, x: int, y: int, z: int, stream: int, function: int, *rest: Any) -> None:
        given = rest[4:]  # behind metadata and hooks
        assert min(x, y, z) > 0
        assert len(given) == len(self.signature), f"{self.name} takes {[*self.signature]}: {len(given)} are given"
        for value, (name, kind) in zip(given, self.signature.items(), strict=True):
            fits = isinstance(value, int) or (kind.startswith("*") and hasattr(value, "data_ptr"))
            assert fits, f"{self.name}: {name} is {kind}; {value!r} is given"
        launches[self.name] += 1


class Utilities:
    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            Path(file.name).write_bytes(kernel)
            command = [TOOLS / "cuobjdump", "-res-usage", file.name]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        registers, stack = map(int, re.findall(r"REG:(\d+) STACK:(\d+)", text)[0])
        resources[f"{name} {len(resources)}"] = registers, stack
        return 1, 2, registers, stack, 1024

    def unload_module(self, module: int) -> None: ...

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232_448, "multiprocessor_count": 132, "warpSize": 32}


class Driver:
    utils = Utilities()
    launcher_cls = Launcher

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 7

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


if __name__ == "__main__":
    from gpu_steps import FORMATS, steps

    driver.set_active(Driver())
    for rule, option, format in product(sys.argv[1:] or ["adam"], ("plain", "all"), FORMATS):
        launches.clear()
        resources.clear()
        with use_backend("triton"):
            tensors = [*steps(rule, option, format, "cpu")]
        print(
            json.dumps(
                {"case": [rule, option, format], "steps": len(tensors), "launches": launches, "resources": resources}
            )
        )
