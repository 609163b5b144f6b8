"""Which way a stack of matrices is orthogonalised: by shape, dtype and kind of processor, never by the stack's length.

Three ways (`orthogonalize.py` has them): "gram" iterates on the small Gram matrix in the matrix's own dtype, "float32" on
the matrix in its own dtype, "bfloat16" on the matrix in bfloat16, as torch.optim.Muon does.
"""

from __future__ import annotations

import functools

import torch

WAYS = ("gram", "float32", "bfloat16")
PROCESSORS = ("amx", "bfloat16", "float32")

# Iterating on the Gram matrix multiplies only small squares. In float32, 5 steps, symmetric products halved, it costs as
# much as plain iteration at an aspect of 1.15; beside torch's bfloat16 on units for bfloat16 (Zen 4), at 3.
GRAM_ASPECT = {"float32": 1.25, "bfloat16": 2.0}


@functools.cache
def processor() -> str:
    """Return what multiplies matrices quickly on this machine's processor.

    "amx" has tiles for bfloat16 (8 to 16 times float32), "bfloat16" has instructions for it (twice float32, Zen 4 and
    later), "float32" has neither: there bfloat16 is slower than float32.
    """
    if not torch.backends.mkldnn.is_available():
        return "float32"
    for name, has in (("amx", "_is_amx_tile_supported"), ("bfloat16", "_is_avx512_bf16_supported")):
        if getattr(torch.cpu, has, bool)():
            return name
    return "float32"


def way_of(n: int, rows: int, columns: int, dtype: torch.dtype, device: torch.device | str, processor: str) -> str:  # noqa: ARG001
    """Return the way for a stack of n matrices; n has no say, so that a matrix takes one way in every stack.

    >>> [way_of(1, 768, columns, torch.float32, "cpu", "bfloat16") for columns in (768, 3072)]
    ['bfloat16', 'gram']
    >>> [way_of(1, 768, columns, torch.float32, "cpu", "float32") for columns in (768, 3072)]
    ['float32', 'gram']
    """
    exact = dtype == torch.float64
    if not exact and (torch.device(device).type != "cpu" or processor == "amx"):
        return "bfloat16"
    narrow = "float32" if exact or processor == "float32" else "bfloat16"
    wide = max(rows, columns) >= GRAM_ASPECT[narrow] * min(rows, columns)
    return "gram" if wide else narrow
