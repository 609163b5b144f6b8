"""Storage formats: how a number is kept in memory. A format is one file, and one name in the table here."""

from __future__ import annotations

import torch

from neon.engine.program.formats.blocks import BLOCKS
from neon.engine.program.formats.floats import FLOATS
from neon.engine.program.formats.format import Format

# By the dtype of the tensor that is kept.
FORMATS: dict[torch.dtype, Format] = {form.dtype: form for form in (*FLOATS, *BLOCKS)}
# Those that a weight or a gradient can have: a number on its own, that nothing stands beside.
ALONE = {dtype: form for dtype, form in FORMATS.items() if form.block == 1}
# What a state can be asked to be kept as.
STATE_NAMES = tuple(dict.fromkeys(form.name for form in FORMATS.values() if form.name != "float64"))


def named(name: str, *, never_negative: bool = False) -> Format:
    """The format of this name; of two, the one without a sign is for what is never negative."""
    forms = [form for form in FORMATS.values() if form.name == name]
    return next((form for form in forms if form.signed != never_negative), forms[0])
