"""What a rule of one's own may make of its tensors, in every format, and what is refused of them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graph_values import value_of
from state_tensors import assert_same, tensors_of
from stored_formats import DTYPES
from torch import Tensor

from neon.engine import use_backend
from neon.engine.program.formats import FORMATS
from neon.engine.program.formats.blocks import BLOCK, scale_name
from neon.engine.program.trace import signature
from neon.optimizers import Optimizer
from neon.optimizers.functions import maximum, norm, sqrt

pytestmark = pytest.mark.usefixtures("one_thread")


# -- which format a state gets ---------------------------------------------------------------------


class OfItsOwn(Optimizer):
    """A norm over the tensor, a state that starts at 0.1, one that is signed and one that may be a negative zero."""

    @staticmethod
    def rule(w, g, size=0.1, velocity=0.0, top=0.0, *, lr=0.01):  # type: ignore[no-untyped-def]
        size = 0.9 * size + 0.1 * sqrt(g * g)
        velocity = 0.9 * velocity + g / (norm(g) + size)
        top = maximum(0.9 * top, g)
        return w - lr * velocity / (sqrt(size) + top * top), size, velocity, top


# -- what a rule of one's own may make of its tensors ----------------------------------------------


class Kept(Optimizer):
    """The weight of before the step."""

    @staticmethod
    def rule(w, g, old, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w - lr * g, w


class Swapped(Optimizer):
    """Every tensor is another's new value."""

    @staticmethod
    def rule(w, g, a=1.0, b=2.0, c=-0.5, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w - lr * g, b, c, a


class Shifted(Optimizer):
    """The last gradients."""

    @staticmethod
    def rule(w, g, g1, g2, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w - lr * (g + g1 + g2), g, g1


class OfNumbers(Optimizer):
    """States that are one number for the tensor: of the step, of a norm, a constant; and one that stays."""

    @staticmethod
    def rule(w, g, rate=0.0, size=0.0, three=0.0, still=0.25, *, lr=0.1, step):  # type: ignore[no-untyped-def]
        return w - rate * g / (1 + size), lr / sqrt(step), norm(g), 3.0, still


class Rolling(Optimizer):
    """Norms of states before and after they change, and one within another."""

    @staticmethod
    def rule(w, g, m, v, *, lr=0.1):  # type: ignore[no-untyped-def]
        before = norm(m)
        m, v = 0.9 * m + g, 0.9 * v + g * g
        return w - lr * m / (before + norm(m - v / norm(v)) + 1.0), m, v


class Unmoved(Optimizer):
    """Norms of a state that is not stored."""

    @staticmethod
    def rule(w, g, m=1.0, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w - lr * g / norm(m), m


class Nothing(Optimizer):
    """No change at all."""

    @staticmethod
    def rule(w, g, m=0.5, *, lr=0.1):  # type: ignore[no-untyped-def]
        return w, m


class Number(Optimizer):
    """A weight that is one number."""

    @staticmethod
    def rule(w, g, m=0.5, *, lr=0.1):  # type: ignore[no-untyped-def]
        return lr, m + w


OWN = [Kept, Swapped, Shifted, OfNumbers, Rolling, Unmoved, Nothing, Number]
# How far a stored number may be from what it stands for, of the largest in its block.
ERRORS = {"float32": 0.0, "bfloat16": 2.0**-7, "float16": 2.0**-10, "int8": 2.0**-3}


def stored_values(state: Any) -> dict[str, Tensor]:
    """A parameter's states as float32."""
    values = {}
    for name, stored in state.items():
        if name in state.get("scales", {}):
            form = FORMATS[stored.dtype]
            scales = state["scales"][name].flatten().repeat_interleave(BLOCK)[: stored.numel()]
            leaves = {name: stored.view(torch.uint8).to(torch.int64).flatten(), scale_name(name): scales}
            values[name] = value_of(form.decode(name), leaves)
        elif name not in ("scales", "step", "low_bits"):
            values[name] = stored.float().flatten().clone()
    return values


def numbers(kind: Any, step: int) -> dict[str, Any]:
    return {"lr": 0.1} | ({"step": step} if "step" in signature(kind.rule).keywords else {})


@pytest.mark.parametrize(
    ("form", "dtype"),
    [("float32", DTYPES[0]), ("bfloat16", DTYPES[1]), ("float16", DTYPES[2]), ("int8", DTYPES[0]), ("int8", DTYPES[1])],
)
@pytest.mark.parametrize("kind", OWN, ids=lambda kind: kind.__name__)
def test_rules_of_ones_own_keep_what_they_return(kind: Any, form: str, dtype: torch.dtype) -> None:
    """Each state in each format is near what the rule returns for tensors, and has the same bits on every backend."""
    starts = {name: torch.full((5000,), state.number) for name, state in signature(kind.rule).states.items()}
    ends = []
    for backend in ("eager", "numba"):
        generator = torch.Generator().manual_seed(5)
        param = (torch.randn(5000, generator=generator) + 3).to(dtype).requires_grad_()
        with use_backend(backend):
            optimizer = kind(state_dtype=form).attach([param])
            for step in (1, 2, 3):
                param.grad = torch.randn(5000, generator=generator).to(dtype)
                before = stored_values(optimizer.state[param]) or starts
                expected = kind.rule(
                    param.detach().float().clone(), param.grad.float(), **before, **numbers(kind, step)
                )
                optimizer.step()
        found = [param.detach().float(), *stored_values(optimizer.state[param]).values()]
        for value, wanted in zip(found, expected, strict=True):
            wanted = torch.as_tensor(wanted, dtype=torch.float32).expand(5000)
            error = max(ERRORS[form], 2.0**-20 if dtype == torch.float32 else 2.0**-7)
            assert ((value - wanted).abs() <= error * wanted.abs().max()).all()
        ends.append([param.detach(), *tensors_of(optimizer.state[param])])
    assert_same(*ends)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rule_of_ones_own_in_eight_bits(dtype: torch.dtype) -> None:
    ends = []
    for backend in ("eager", "numba"):
        generator = torch.Generator().manual_seed(5)
        param = torch.randn(70_001, generator=generator).to(dtype).requires_grad_()
        with use_backend(backend):
            optimizer = OfItsOwn(lr=0.1, state_dtype="int8").attach([param])
            for _ in range(3):
                param.grad = torch.randn(70_001, generator=generator).to(dtype)
                optimizer.step()
        ends.append([param.detach(), *tensors_of(optimizer.state[param])])
        state = optimizer.state[param]
        assert [state[name].dtype for name in ("size", "velocity", "top")] == [torch.uint8, torch.int8, torch.int8]
    assert_same(*ends)
