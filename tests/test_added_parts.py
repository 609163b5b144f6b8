"""An operation and a backend that are added from outside: one entry each, and nothing else."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from other_versions import needs_interpreter
from torch import Tensor

from neon.engine import backends, use_backend
from neon.engine.backends import eager
from neon.engine.backends.contract import Backend
from neon.engine.program.graph import apply, scalar
from neon.engine.program.kernel import Kernel
from neon.engine.program.operations import LIKE_OPERANDS, OPERATIONS, Operation
from neon.engine.program.options import Options
from neon.engine.program.printer import listing
from neon.engine.program.scalars import HostProgram
from neon.engine.program.signs import never_negative
from neon.engine.program.symbols import operation
from neon.engine.program.trace import trace
from neon.optimizers import Adam, Optimizer
from neon.optimizers.functions import norm

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def hypotenuse() -> Iterator[None]:
    """√(a² + b²), written in each language by what that has."""
    OPERATIONS["hypotenuse"] = Operation(
        "hypotenuse({}, {})",
        ("float", "float"),
        lambda a, b: OPERATIONS["sqrt"].torch(a * a + b * b),
        lambda a, b: math.sqrt(a * a + b * b),
        lambda a, b: np.sqrt(a * a + b * b),
        never_negative=LIKE_OPERANDS,
        sources={
            "numba": "math.sqrt(({0}) * ({0}) + ({1}) * ({1}))",
            "triton": "tl.sqrt_rn(({0}) * ({0}) + ({1}) * ({1}))",
            "triton_float64": "tl.sqrt(({0}) * ({0}) + ({1}) * ({1}))",
        },
    )
    yield
    del OPERATIONS["hypotenuse"]


class Rotating(Optimizer):
    """A rule that takes the operation of elements, of numbers, of a sum, and of constants."""

    @staticmethod
    def rule(w: Any, g: Any, kept: Any = 1.0, *, lr: float = 0.1, step: float) -> Any:
        kept = operation("hypotenuse", 0.9 * kept, operation("hypotenuse", g, 0.5))
        rate = operation("hypotenuse", lr, 1.0 / step)
        return w - rate * g / operation("hypotenuse", kept, norm(g)), kept


def stepped(backend: str, dtype: torch.dtype, **options: Any) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    params = [torch.randn(n, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for n in (7, 300)]
    with use_backend(backend):
        attached = Rotating(**options).attach(params)
        for _ in range(2):
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64).to(dtype)
            attached.step()
    return [t for p in params for t in (p.detach(), attached.state[p]["kept"])]


@pytest.mark.usefixtures("hypotenuse")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("backend", ["numba", pytest.param("triton", marks=needs_interpreter)])
def test_an_operation_is_one_entry(backend: str, dtype: torch.dtype) -> None:
    found, expected = stepped(backend, dtype), stepped("eager", dtype)
    assert all(map(torch.equal, found, expected))
    assert all((state >= 0.5).all() for state in expected[1::2])


@pytest.mark.usefixtures("hypotenuse")
def test_an_added_operation_is_printed_and_has_a_sign() -> None:
    program = trace(Rotating.rule, {"lr": 0.1, "step": 1.0}, Options())
    assert "hypotenuse(0.9 * kept, hypotenuse(g, 0.5))" in listing(program.outputs)
    assert never_negative(program) == frozenset()  # a gradient may be negative
    program = trace(lambda w, g, a, *, lr: (w, operation("hypotenuse", a, abs(g))), {"lr": 0.1}, Options())
    assert never_negative(program) == {"a"}


@pytest.mark.usefixtures("hypotenuse")
def test_the_host_computes_an_added_operation_for_one_group_and_for_many() -> None:
    a, b = scalar("a"), scalar("b")
    host = HostProgram([apply("hypotenuse", a, b) + 1.0])
    assert host.evaluate({a: 3.0, b: 4.0}) == [6.0]
    [rows] = host.evaluate({a: np.array([3.0, 5.0, math.inf]), b: np.array([4.0, 12.0, 1.0])})
    assert rows.tolist() == [6.0, 14.0, math.inf]


# -- backends --------------------------------------------------------------------------------------


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[Kernel]:
    """A backend in a module of its own, that serves a type of device: eager, noting what it prepares."""
    prepared: list[Kernel] = []

    class Counting(eager.Eager):
        def __init__(self, kernel: Kernel) -> None:
            super().__init__(kernel)
            prepared.append(kernel)

    module = ModuleType("a_backend_of_ones_own")
    module.BACKEND = Backend("counting", Counting)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(backends.BACKENDS, "counting", (module.__name__, ("hpu",)))
    return prepared


def test_a_backend_is_one_entry(counting: list[Kernel]) -> None:
    ends = []
    for backend in ("eager", "counting"):
        param = torch.linspace(-1, 1, 9).requires_grad_()
        with use_backend(backend):
            opt = Adam(gradient_clip_norm=1.0).attach([param])
            for _ in range(2):
                param.grad = torch.linspace(2, -1, 9)
                opt.step()
        ends.append(param.detach())
    assert torch.equal(*ends)
    assert len(counting) == 1
    assert backends.serving(torch.device("hpu")).name == "counting"
    assert backends.serving(torch.device("cpu")).name == "numba"


def test_a_backend_says_what_it_cannot_do(counting: list[Kernel], monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["a_backend_of_ones_own"]
    with use_backend("counting"), pytest.raises(ValueError, match="capturable=True asks for steps"):
        Adam().attach([torch.zeros(3, requires_grad=True)], capturable=True)
    monkeypatch.setattr(module, "BACKEND", Backend("counting", eager.Eager, serves=lambda device: False))
    assert backends.serving(torch.device("hpu")).name == "eager"
    monkeypatch.setattr(module, "BACKEND", Backend("counting", eager.Eager, package="no_such_package"))
    assert backends.serving(torch.device("hpu")).name == "eager"
    with use_backend("counting"), pytest.raises(ModuleNotFoundError, match="pip install no_such_package"):
        backends.serving(torch.device("cpu"))
    assert not counting


@pytest.mark.parametrize("name", backends.BACKENDS)
def test_a_backend_goes_by_the_name_that_the_table_has_for_it(name: str) -> None:
    assert backends.named(name).name == name


def test_an_unknown_backend_is_refused_by_the_names_that_there_are(counting: list[Kernel]) -> None:
    message = "Unknown backend 'metal'. Choose one of 'eager', 'numba', 'triton', 'counting'."
    with pytest.raises(ValueError, match=message), use_backend("metal"):
        pass


def test_no_compiler_is_imported_before_a_step() -> None:
    code = "import neon.optimizers, neon.torch, sys; print({'numba', 'llvmlite', 'triton'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
