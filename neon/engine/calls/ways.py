"""Which way a stack of matrices is orthogonalised: by shape, dtype and kind of processor, never by the stack's length.

"gram" iterates on the small Gram matrix and "float32" on the matrix, both in the dtype of the matrix; "bfloat16"
iterates on the matrix in bfloat16, as torch.optim.Muon does. `orthogonalize.py` has all three.
"""

from __future__ import annotations

import functools

import torch

WAYS = ("gram", "float32", "bfloat16")
PROCESSORS = ("amx", "bfloat16", "float32")

# From this ratio of the sides on, iterating on the Gram matrix in float32 is as quick as the other. It multiplies only
# small squares: 17 products in 5 steps, beside two with the matrix. On Zen 4, with Keller Jordan's 5 steps, plain
# float32 costs the same at 1.3 to 1.5, torch's function (bfloat16, with instructions for it) at 3, bfloat16 here above.
GRAM_ASPECT = {"float32": 1.5, "bfloat16": 3.5}


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
    doubled = dtype == torch.float64
    if not doubled and (torch.device(device).type != "cpu" or processor == "amx"):
        return "bfloat16"
    narrow = "float32" if doubled or processor == "float32" else "bfloat16"
    wide = max(rows, columns) >= GRAM_ASPECT[narrow] * min(rows, columns)
    return "gram" if wide else narrow
