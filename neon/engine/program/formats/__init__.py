"""Storage formats: how a number is kept in memory. A format is one file, and one entry of `FORMATS`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch

from neon.engine.program.formats.blocks import BLOCKS
from neon.engine.program.formats.floats import FLOATS
from neon.engine.program.formats.format import Format
from neon.messages import received

# By the dtype of the tensor that is kept.
FORMATS: dict[torch.dtype, Format] = {form.dtype: form for form in (*FLOATS, *BLOCKS)}
# The format of states that takes the size of the parameter.
PARAMETER = "parameter"


@lru_cache
def weight_dtypes() -> tuple[torch.dtype, ...]:
    """What a weight or a gradient can be kept as: numbers on their own, without auxiliary tensors."""
    return tuple(dtype for dtype, form in FORMATS.items() if form.block == 1)


def named(name: str, *, never_negative: bool = False) -> Format:
    """The format of this name; of two, the one without a sign is for what is never negative."""
    forms = [form for form in FORMATS.values() if form.name == name]
    return next((form for form in forms if form.signed != never_negative), forms[0])


def state_format(name: str, value: Any) -> str | tuple[tuple[str, str], ...] | None:
    """A format by name or dtype, a dict of such by state, or None; as strings, and pairs of them."""
    pairs = value.items() if isinstance(value, dict) else value
    if isinstance(value, (dict, tuple, list)):
        return tuple((str(state), _known(f"{name}[{state!r}]", form)) for state, form in pairs)
    return None if value is None else _known(name, value)


def _known(name: str, value: Any) -> str:
    known = (*dict.fromkeys(form.name for form in FORMATS.values() if form.name != "float64"), PARAMETER)
    if (form := str(value).removeprefix("torch.")) not in known:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, or None. {received(name, value)}")
    return form
