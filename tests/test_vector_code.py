"""The machine code of compiled kernels: every loop over elements works on whole vector registers."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from constructors import RULES, described
from lowered_kernels import kernel_of

from neon.engine.backends import numba as numba_backend
from neon.engine.program.kernel import Kernel
from neon.engine.program.lowering import lower
from neon.engine.program.slots import Formats
from neon.engine.program.trace import trace
from neon.optimizers import Adafactor, Adam, ShiftAdaMax

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux",
    reason="what it reads is the assembly language of x86-64, as Linux has it",
)

# Instructions of a source operation; on one number they end in ss or sd, on a register of them in ps or pd.
FUSED = r"fmadd\d+"
ARITHMETIC = ("add", "sub", "mul", "div", "sqrt", FUSED)
SCALAR = re.compile(rf"v?({'|'.join(ARITHMETIC)})s[sd]$")


def assembly(kernel: Kernel) -> list[list[str]]:
    """The instructions of each stage, with the labels between them."""
    _, *parts = re.split(r"\.type\s+\S*stage_(\d)\S*,@function", numba_backend.assembly(kernel))
    stages: dict[str, list[str]] = {}
    for number, text in zip(parts[::2], parts[1::2], strict=True):
        stages.setdefault(number, []).extend(text.splitlines())
    return [stages[str(number)] for number in range(len(stages))]


def loops(lines: list[str]) -> list[list[str]]:
    """The names of the instructions of each innermost loop: from a label to the jump back to it."""
    found, start, label = [], 0, ""
    for number, line in enumerate(lines):
        if line.startswith(".L") and line.split("#")[0].strip().endswith(":"):
            start, label = number + 1, line.split(":")[0]
        words = line.split()
        if words and words[0].startswith("j") and words[-1] == label:
            found.append([text.split()[0] for text in lines[start:number] if text.startswith("\t")])
    return found


def packed(loop: list[str], operation: str) -> int:
    return sum(re.fullmatch(rf"v?{operation}p[sd]", name) is not None for name in loop)


def hot_loop(lines: list[str]) -> list[str]:
    """The loop with the most arithmetic on whole registers: the others do what it leaves over."""
    return max(loops(lines), key=lambda loop: sum(packed(loop, operation) for operation in ARITHMETIC))


def check_update(kernel: Kernel) -> None:
    loop = hot_loop(assembly(kernel)[-1])
    assert not [name for name in loop if SCALAR.match(name)]
    whole = "columns" if kernel.by_rows else "count"
    body = numba_backend.source(kernel).rpartition(f"for i in range({whole}):")[2]
    for operation, text in {"add": " + ", "mul": " * ", "div": " / ", "sqrt": "math.sqrt"}.items():
        assert packed(loop, operation) >= (text in body)


OPTIONS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "all": (
        torch.bfloat16,
        {"gradient_clip_norm": 1.0, "gradient_clip_value": 0.1, "stochastic_round": True},
    ),
    "plain": (torch.float32, {}),
    "clip by value": (torch.float32, {"gradient_clip_value": 0.1}),
    "clip by norm": (torch.float32, {"gradient_clip_norm": 1.0}),
    "bfloat16 at random": (torch.bfloat16, {"stochastic_round": True}),
}
# Options alone are Adam's to show: to another rule's loop over elements they only add.
ALONE = [
    pytest.param(rule, option, marks=() if option == "all" or rule == "Adam" else pytest.mark.crossing)
    for rule in RULES
    for option in OPTIONS
]


@pytest.mark.parametrize(("rule", "option"), ALONE)
def test_every_rule_is_vector_code(rule: str, option: str) -> None:
    dtype, arguments = OPTIONS[option]
    check_update(kernel_of(described(rule, **arguments), dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_norm_is_vector_code(dtype: torch.dtype) -> None:
    norm, _ = assembly(kernel_of(Adam(gradient_clip_norm=1.0), dtype))
    loop = hot_loop(norm)
    assert not [name for name in loop if SCALAR.match(name)]
    # Where the processor has one instruction for both, none is spent on a sum alone.
    assert packed(loop, FUSED) > 0 or min(packed(loop, "mul"), packed(loop, "add")) > 0
    assert packed(loop, FUSED) == 0 or packed(loop, "add") == 0


def test_a_root_and_a_division_take_turns_with_codes() -> None:
    """Of states in blocks: in the loop that writes them, not in the one that reads them."""
    [update] = assembly(kernel_of(Adam(state_dtype="int8")))
    found = [loop for loop in loops(update) if packed(loop, "sqrt")]
    assert found
    for loop in found:
        assert packed(loop, "div") == packed(loop, "sqrt")
        assert any(name.startswith(("vpmulld", "pmulld", "pmuludq", "vpmuludq")) for name in loop)  # of random bits


def test_a_bound_is_one_instruction() -> None:
    [update] = assembly(kernel_of(ShiftAdaMax()))
    loop = hot_loop(update)
    assert packed(loop, "max") == packed(loop, "min") > 0


def test_lanes_stay_in_registers_beside_sums_of_columns() -> None:
    """Of Adafactor's three: of rows, of columns, and of the whole weight."""
    first, *_ = assembly(kernel_of(Adafactor()))
    sums = max(loops(first), key=lambda loop: sum(name.startswith("vcvtps2pd") for name in loop))
    moved = sum(name.startswith(("vmovupd", "vmovapd")) for name in sums)
    assert 0 < moved <= 2 * packed(sums, FUSED) // 3  # of three sums, those of columns alone are loaded and stored


def with_states(count: int) -> Callable[..., Any]:
    """A rule that keeps that many states."""
    states = [f"state_{number}" for number in range(count)]
    updates = "".join(f"    {name} = {name} + lr * (g - {name})\n" for name in states)
    source = f"def rule(w, g, {', '.join(states)}, *, lr):\n{updates}"
    source += f"    return w - lr * ({' + '.join(states)}), {', '.join(states)}\n"
    module: dict[str, Any] = {}
    exec(compile(source, "<rule>", "exec"), module)
    return module["rule"]


@pytest.mark.parametrize("dtypes", ["float32", "bfloat16", "float64", "bfloat16 float32", "float32 float16"])
@pytest.mark.parametrize("count", [1, 6, 12])
def test_a_rule_with_many_states_is_vector_code(count: int, dtypes: str) -> None:
    """The compiler asks at run time whether tensors overlap, and could give up where there are many to ask about."""
    first, *others = (getattr(torch, name) for name in dtypes.split())
    states = tuple(([first, *others] * count)[-count:])
    program = trace(with_states(count), {"lr": 0.1}, ("weight_decay", "gradient_clip_value"))
    check_update(lower(program, Formats(first, first, states)))


def test_scalar_code_is_told_from_vector_code() -> None:
    lines = [".LBB0_1:", "\tvmulss\t%xmm0, %xmm1, %xmm2", "\tjne\t.LBB0_1"]
    assert loops(lines) == [["vmulss"]]
    assert SCALAR.match("vmulss")
    assert packed(["vmulss"], "mul") == 0
    assert packed(["vmulps", "sqrtpd"], "mul") == 1
