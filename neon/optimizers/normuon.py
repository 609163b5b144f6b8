"""NorMuon (Li et al. 2025)."""

from __future__ import annotations

from typing import Any

from neon.arguments import beta, flag, non_negative, positive, unit_interval
from neon.engine.calls.coefficients import SCHEDULES
from neon.engine.program.declared import State
from neon.engine.program.numbers import Number
from neon.engine.program.spaces import COLUMNS, ROWS
from neon.optimizers.functions import count, maximum, mean_square, sqrt, total
from neon.optimizers.matrix_functions import orthogonalize
from neon.optimizers.muon import coefficients, processor_units, step_count, with_units
from neon.optimizers.optimizer import Optimizer


def normuon(  # type: ignore[no-untyped-def]
    w, g, momentum_buffer, row_sq=State(of=ROWS),
    *, lr, momentum, beta2, eps, weight_decay, ns_coefficients, ns_steps, nesterov=True, match_rms=True, units=None,
):  # fmt: skip
    """One step of NorMuon (Li et al. 2025, algorithm 1): Muon, each row of its step by its own length over time.

        momentum_buffer ← μ·momentum_buffer + (1−μ)·g
        o               = orthogonalized momentum_buffer, or with `nesterov` of μ·momentum_buffer + (1−μ)·g
        row_sq          ← β₂·row_sq + (1−β₂)·(mean of o² over each row)
        u               = o / (√row_sq + ε)
        w               ← (1 − lr·λ)·w − lr·0.2·√(rows·columns)/(‖u‖ + ε)·u

    Without `match_rms` √max(1, rows/columns)·‖o‖ stands for 0.2·√(rows·columns). Norms are of each matrix.

    >>> numbers = dict(lr=0.1, momentum=0.9, beta2=0.5, eps=0.5, weight_decay=0.5, ns_coefficients=(2.0, -1.5, 0.5))
    >>> w, momentum_buffer, row_sq = normuon(2.0, 0.5, 0.1, 0.3, **numbers, ns_steps=1)
    >>> round(w, 8), round(momentum_buffer, 8), round(row_sq, 8)
    (1.88790161, 0.14, 0.65)
    >>> round(normuon(2.0, 0.5, 0.1, 0.3, **numbers, ns_steps=0, match_rms=False)[0], 8)
    1.83950806
    """
    momentum_buffer = momentum * momentum_buffer + (1 - momentum) * g
    update = momentum * momentum_buffer + (1 - momentum) * g if nesterov else momentum_buffer
    o = orthogonalize(update, ns_coefficients, steps=ns_steps, units=units)
    rows, columns, square = count(o, over=COLUMNS), count(o, over=ROWS), mean_square(o, over=ROWS)
    row_sq = beta2 * row_sq + (1 - beta2) * square
    length = 1 / (sqrt(row_sq) + eps)
    norm = sqrt(columns * total(square * length**2, over=COLUMNS))  # ‖u‖, of what is known of rows
    of_o = sqrt(maximum(1, rows / columns)) * sqrt(columns * total(square, over=COLUMNS))
    scale = 0.2 * sqrt(rows * columns) if match_rms else of_o
    return (1 - lr * weight_decay) * w - lr * (scale / (norm + eps) * length * o), momentum_buffer, row_sq


class NorMuon(Optimizer):
    """NorMuon (Li et al. 2025), for hidden matrices: Muon, of whose step each row has the same length over time.

        m' = μm + (1−μ)g;  o = orthogonalized (1−μ)g + μm', without `nesterov` m';  v' = β₂v + (1−β₂)(mean o² of rows)
        u = o / (√v' + ε);  θ' = (1−αλ)θ − α·0.2√(RC)/(‖u‖ + ε)·u    of a matrix of R rows and C columns

    Without `match_rms` the length of u is that of o, times √max(1, R/C), as in the authors' program, whose convolutions
    are many matrices; here they are one, as in Muon. Tensors of fewer than two dimensions are refused. `parts` is
    Muon's for parts of one length. m may be kept in 16 bits; "int8" leaves it in float32, for v goes by rows, which
    blocks of 256 numbers would cut. The other options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    of_matrices = True
    rule = staticmethod(normuon)
    learning_rate = Number(0.02, non_negative, "lr", "α ≥ 0")
    wdecay = Number(0.0, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    momentum_coef = Number(0.95, unit_interval, "momentum", "μ in [0, 1]")
    beta_2 = Number(0.95, beta, "beta2", "β₂ in [0, 1)")
    epsilon = Number(1e-10, positive, "eps", "ε > 0")
    nesterov = Number(True, flag, meaning="Nesterov's form")
    ns_coefficients = Number(SCHEDULES["simple"][0], coefficients, meaning="(a, b, c) of each step, or a name for them")
    ns_steps = Number(5, step_count, meaning="how many steps, 0 to 99: a shorter schedule goes on")
    match_rms = Number(True, flag, meaning="a root mean square of 0.2, of each matrix's step")
    units = Number(None, processor_units, meaning="what a processor is quick in; None: that at hand", optional=True)

    def group(self) -> dict[str, Any]:
        return with_units(super().group())
