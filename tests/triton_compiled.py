"""A program that compiles kernels for a GPU without having one, and prints the instructions that they use."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import torch
import triton as compiler
from lowered_kernels import kernel_of
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from neon.engine.backends import triton, triton_intrinsics, triton_launch
from neon.optimizers import LAMB, Adam, Optimizer, Prodigy, ShiftAdaMax

H100 = GPUTarget("cuda", 90, 32)
INSTRUCTIONS = r"(?:ld|st)\.global[.\w]*|(?:fma|div|sqrt|add|sub|mul|min|max)\.[.\w]+"


def report(name: str, function: Any, types: dict[str, str], constants: dict[str, Any]) -> None:
    """Print how often a compiled function has each instruction of interest."""
    signature = types | dict.fromkeys(constants, "constexpr")
    aligned = {(i,): [["tt.divisibility", 16]] for i, kind in enumerate(types.values()) if kind.startswith("*")}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    compiled = compiler.compile(source, target=H100, options=dict(triton_launch.LAUNCH))
    print(f"{name}: {json.dumps(Counter(re.findall(INSTRUCTIONS, compiled.asm['ptx'])))}")


def report_all(name: str, optimizer: Optimizer, dtype: torch.dtype) -> None:
    """Every function of an optimizer's kernel."""
    kernel = kernel_of(optimizer, dtype)
    real = "*fp64" if dtype == torch.float64 else "*fp32"
    functions = triton.Triton(kernel)
    for number, (numbers, stage) in enumerate(zip(functions.numbers, functions.stages, strict=True)):
        types = {
            "chunks": "*i64",
            "table": "*i64",
            "scalars": real,
            "steps": "*fp64",
            "partials": "*fp64",
            "stop": "*fp32",
        }
        for aligned in (False, True):
            constants = {"TILE": triton_launch.TILE, "PART": triton_launch.PART, "ALIGNED": aligned}
            report(f"{name} stage {number}{', aligned' * aligned}", stage, types, constants)
        if numbers is not None:
            types = {
                "numbers": "*fp64",
                "sums": "*i64",
                "counts": "*i64",
                "steps": "*fp64",
                "scalars": real,
                **({"kept": "*i64", "stop": "*fp32"} if kernel.numbers and number == len(kernel.stages) - 1 else {}),
                "rows": "i32",
            }
            report(f"{name} numbers {number}", numbers, types, {"ROWS": triton_launch.NUMBER_ROWS})


if __name__ == "__main__":
    report_all("adam", Adam(gradient_clip_norm=1.0), torch.float32)
    report_all("bfloat16", Adam(True, state_dtype="bfloat16"), torch.bfloat16)
    report_all("int8", Adam(state_dtype="int8", master="split"), torch.bfloat16)
    report_all("shift", ShiftAdaMax(), torch.float64)
    report_all("lamb", LAMB(state_dtype="int8"), torch.float32)
    report_all("prodigy", Prodigy(), torch.float32)
    types = {"addresses": "*i64", "ends": "*i64", "by_size": "*i32", "totals": "*fp64"}
    report("sums", triton_intrinsics.sum_up, types, {"LANES": 1024})
    types = {"exact": "*fp64", "shown": "*fp32", "places": "*i64", "stop": "*fp32", "count": "i32"}
    report("counts", triton_intrinsics.count_up, types, {"ROWS": triton_launch.NUMBER_ROWS})
