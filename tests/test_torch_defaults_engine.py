"""torch's global defaults, of dtype and of device, reach nothing that the engine makes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import pytest
import torch
from pairs import crossed
from rule_cases import OF_MATRICES, RULES, make
from state_tensors import assert_same
from stored_formats import DTYPES, FORMATS, is_served, options
from torch import Tensor

from neon.engine import use_backend, versions
from neon.engine.plan import Plan
from neon.engine.settings import Item
from neon.engine.tensors.kept import Keeper

pytestmark = pytest.mark.usefixtures("one_thread")

DEFAULTS = {"bfloat16": torch.bfloat16, "float64": torch.float64, "meta": torch.device("meta")}


@contextmanager
def default(name: str) -> Iterator[None]:
    chosen, dtype = DEFAULTS[name], torch.get_default_dtype()
    try:
        if isinstance(chosen, torch.dtype):
            torch.set_default_dtype(chosen)
            yield
        else:
            with chosen:
                yield
    finally:
        torch.set_default_dtype(dtype)


def stepped(rule: str, form: str, dtype: torch.dtype) -> list[Tensor]:
    """A parameter after two steps, with its states and auxiliary tensors."""
    numbers = {"dtype": torch.float32, "device": "cpu"}
    shape = (1, 4999) if rule in OF_MATRICES else (4999,)
    param = torch.linspace(-1, 1, 4999, **numbers).view(shape).to(dtype).requires_grad_()
    grad = torch.linspace(2, -1, 4999, **numbers).view(shape).to(dtype)
    optimizer = make(rule, "all", **options(rule, form))
    settings = optimizer.settings(optimizer.group())
    keeper = Keeper(settings.storage, settings.program_of(param), param, settings.values)
    kept = keeper.tensors(param, {})
    item = Item("p", param, kept, torch.tensor(0.0, **numbers), 0, 0)
    plan = Plan([item], [grad], [settings])
    for _ in range(2):
        assert plan.holds([grad])
        plan.step([grad])
    return [param.detach(), *kept.values()]


FORMS = [*product(["eager"], FORMATS), ("numba", "int8"), ("numba", "split")]


@pytest.mark.parametrize(
    ("rule", "name", "backend", "form"),
    crossed((rule, name, *form) for rule, name, form in product(RULES, DEFAULTS, FORMS)),
)
def test_no_default_reaches_a_step(rule: str, name: str, backend: str, form: str) -> None:
    dtype = torch.bfloat16 if form == "split" else DTYPES[FORMATS.index(form) % len(DTYPES)]
    dtype = dtype if is_served(rule, form, dtype, False, None) else torch.float32
    with use_backend(backend):
        expected = stepped(rule, form, dtype)
        with default(name):
            found = stepped(rule, form, dtype)
    assert_same(found, expected)
    assert {tensor.device.type for tensor in found} == {"cpu"}


def test_no_default_reaches_the_watch() -> None:
    with default("meta"):
        assert versions._guards_work.__wrapped__()
