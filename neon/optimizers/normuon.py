"""NorMuon (Li et al. 2025)."""

from __future__ import annotations

from neon.engine.program.spaces import ROWS
from neon.optimizers.functions import mean_square, norm, sqrt


def normuon(  # type: ignore[no-untyped-def]
    w, g, momentum_buffer=0.0, row_sq=0.0,
    *, lr, momentum, beta2, eps, weight_decay, nesterov, keep_norm, scale, orthogonalize,
):  # fmt: skip
    """One step of NorMuon (Li et al. 2025, algorithm 1): Muon, each row by its own length over time.

        momentum_buffer ← μ·momentum_buffer + (1−μ)·g
        o               = orthogonalised momentum_buffer; with Nesterov of μ·momentum_buffer + (1−μ)·g
        row_sq          ← β₂·row_sq + (1−β₂)·(mean of o² over each row)
        u               = o / (√row_sq + ε)
        w               ← w − lr·λ·w − lr·scale/(‖u‖ + ε)·u

    `scale` is 0.2·√(rows·columns), for a root mean square of 0.2 as in the paper. With `keep_norm` ‖o‖ is a factor
    more, as in the authors' program, and `scale` their √max(1, rows/columns). `row_sq` begins at 0 and needs no
    correction of that: all rows have the same, and u is scaled.
    """
    momentum_buffer = momentum * momentum_buffer + (1 - momentum) * g
    o = orthogonalize(momentum * momentum_buffer + (1 - momentum) * g if nesterov else momentum_buffer)
    row_sq = beta2 * row_sq + (1 - beta2) * mean_square(o, over=ROWS)
    u = o / (sqrt(row_sq) + eps)
    length = (scale * norm(o) if keep_norm else scale) / (norm(u) + eps)
    return w - lr * weight_decay * w - lr * length * u, momentum_buffer, row_sq
