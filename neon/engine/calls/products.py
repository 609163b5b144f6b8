"""Products of stacks of matrices whose result is known to be symmetric: half the work."""

from __future__ import annotations

import torch
from torch import Tensor

# On Zen 4 at a side of 768, blocks of 128 take 0.66 of a whole product in float32, 0.73 in bfloat16. Below a side of
# 512 the blocks are too small to gain. (numpy's product, BLAS's syrk, is no quicker, and its threads delay torch's.)
BLOCK = 128
SMALLEST_SIDE = 512


def halved(side: int, device: torch.device | str) -> bool:
    """Whether symmetric products of this side are made of blocks, one matrix at a time."""
    return side >= SMALLEST_SIDE and torch.device(device).type == "cpu"


def symmetric_product(
    left: Tensor, right: Tensor, out: Tensor, *, plus: Tensor | None = None, beta: float = 0.0, alpha: float = 1.0
) -> Tensor:
    """out ← beta·plus + alpha·left·right for stacks (n, side, side), where the result is symmetric.

    Large ones on a CPU are computed from the diagonal on, by rows of blocks, and mirrored.
    """
    if alpha == 0:  # torch 2.13's baddbmm of bfloat16 takes an alpha of 0 for 1 on a CPU
        return torch.mul(out if plus is None else plus, beta, out=out)
    side = out.shape[-1]
    plus = out if plus is None else plus  # with a beta of 0 it is not read
    if not halved(side, out.device):
        return torch.baddbmm(plus, left, right, beta=beta, alpha=alpha, out=out)
    for i in range(len(out)):
        for start in range(0, side, BLOCK):
            end = min(start + BLOCK, side)
            rows, rest = slice(start, end), slice(start, None)
            block = out[i, rows, rest]
            torch.addmm(plus[i, rows, rest], left[i, rows], right[i, :, rest], beta=beta, alpha=alpha, out=block)
            out[i, end:, rows].copy_(block[:, end - start :].mT)
    return out
