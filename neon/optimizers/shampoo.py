"""Shampoo (Gupta et al. 2018), with the length of another rule's step (Anil et al. 2020)."""

from __future__ import annotations

from typing import Any

from neon.arguments import beta, flag, non_negative, positive_integer, unit_interval, whole_number
from neon.engine.program.declared import State
from neon.engine.program.numbers import Number
from neon.engine.program.spaces import COLUMN_PAIRS, COLUMNS, ROW_PAIRS, ROWS
from neon.messages import listed, received
from neon.optimizers.functions import clip, equal, norm, remainder, sign, sqrt, where
from neon.optimizers.matrix_functions import gram, restored, root_of
from neon.optimizers.optimizer import Optimizer


def _grafted(g, square, graft, beta2, graft_eps):  # type: ignore[no-untyped-def]
    """The step whose length counts, and its squares."""
    if graft in ("adagrad", "rmsprop"):
        square = square + g * g if graft == "adagrad" else beta2 * square + (1 - beta2) * g * g
        return g / (sqrt(square) + graft_eps), square
    return sign(g) if graft == "sign" else g, square


def _rooted(g, side, root, over, beta2, exponent, eps, of, due):  # type: ignore[no-untyped-def]
    """The average, or the sum, of the products of rows or columns, and its root."""
    side = beta2 * side + where(equal(beta2, 1), 1, 1 - beta2) * gram(g, over)
    return side, root_of(side, root, exponent, eps, due, of)


def shampoo(  # type: ignore[no-untyped-def]
    w, g, momentum_buffer=0.0, graft_buffer=0.0, square=0.0,
    left=State(of=ROW_PAIRS), right=State(of=COLUMN_PAIRS),
    left_root=State(1.0, of=ROW_PAIRS), right_root=State(1.0, of=COLUMN_PAIRS),
    *, lr, betas, eps, graft_eps, weight_decay, frequency, start, graft, eps_of="start",
    nesterov=False, decoupled=True, few_rows, few_columns, step,
):  # fmt: skip
    """One step of Shampoo (Gupta et al. 2018, algorithm 1) with grafting (Anil et al. 2020).

        left, right           ← β₂·left + (1−β₂)·g·gᵀ, β₂·right + (1−β₂)·gᵀ·g;  both begin at ε·I.  β₂ = 1: sums
        left_root, right_root ← left^(−1/4), right^(−1/4), every k steps; the identity before
        d                     = g (sgd), sign(g) (sign) or g / (√square + ε') (adagrad, rmsprop: sums or averages of g²)
        u                     = ‖d‖/‖left_root·g·right_root‖ · left_root·g·right_root
        momentum_buffer       ← β₁·momentum_buffer + u
        w                     ← w − lr·λ·w − lr·momentum_buffer; with Nesterov −lr·(β₁·momentum_buffer + u)

    Before step `start` the steps are those of d, with a momentum of their own, graft_buffer. With `graft="none"` u
    keeps its length. Without `decoupled` λ·w is added to u and d. A side of which `few_rows` or `few_columns` is
    False has no root; the other's exponent is then −1/2. Without either side u is d. ε·I fades as the averages go on;
    with `eps_of` "one" it is added at each root instead, with "largest" times the largest eigenvalue, with "least"
    above a negative one.

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=0.5, graft_eps=0.25, weight_decay=0.5, frequency=2, start=3,
    ...                few_rows=True, few_columns=True)
    >>> w, *states = shampoo(2.0, 0.5, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0, 1.0, **numbers, graft="none", step=4)
    >>> round(w, 8), [round(state, 8) for state in states]
    (1.84030511, [0.59694889, 0.68, 0.3, 0.3985, 0.5965, 1.03282736, 0.98167208])
    >>> rest = [
    ...     shampoo(2.0, 0.5, 0.1, 0.2, 0.3, 0.4, 0.6, 1.0, 1.0, **numbers, graft=graft, nesterov=True, step=step)[0]
    ...     for graft in ("rmsprop", "adagrad", "sign") for step in (2, 4)
    ... ]
    >>> [round(w, 8) for w in rest]
    [1.76464277, 1.77274277, 1.78799716, 1.79609716, 1.6938, 1.7019]
    """
    d, square = _grafted(g, square, graft, betas[1], graft_eps)
    exponent, due = 2 * (few_rows + few_columns), equal(remainder(step, frequency), 0)
    least, of = (eps * betas[1] ** step, "one") if eps_of == "start" else (eps, eps_of)
    if few_rows:
        left, left_root = _rooted(g, left, left_root, ROWS, betas[1], exponent, least, of, due)
    if few_columns:
        right, right_root = _rooted(g, right, right_root, COLUMNS, betas[1], exponent, least, of, due)
    u = restored(g, left_root if few_rows else None, right_root if few_columns else None) if exponent else d
    u = u if graft == "none" else norm(d) / (norm(u) + 1e-16) * u
    u, d = (u, d) if decoupled else (u + weight_decay * w, d + weight_decay * w)
    momentum_buffer, graft_buffer = betas[0] * momentum_buffer + u, betas[0] * graft_buffer + d
    begun = clip(step - start + 1, 0, 1)
    taken, fresh = begun * momentum_buffer + (1 - begun) * graft_buffer, begun * u + (1 - begun) * d
    w = w - lr * weight_decay * w if decoupled else w
    w = w - lr * (betas[0] * taken + fresh if nesterov else taken)
    return w, momentum_buffer, graft_buffer, square, left, right, left_root, right_root


GRAFTS = ("none", "sgd", "sign", "adagrad", "rmsprop")
PLACES_OF_EPSILON = ("start", "one", "largest", "least")


def graft_name(name: str, value: Any) -> str:
    """One of GRAFTS."""
    if value not in GRAFTS:
        raise ValueError(f"{name} must be one of {listed(GRAFTS)}. {received(name, value)}")
    return value


def place_of_epsilon(name: str, value: Any) -> str:
    """One of PLACES_OF_EPSILON."""
    if value not in PLACES_OF_EPSILON:
        raise ValueError(f"{name} must be one of {listed(PLACES_OF_EPSILON)}. {received(name, value)}")
    return value


class Shampoo(Optimizer):
    """Shampoo (Gupta et al. 2018) with grafting (Anil et al. 2020): g by inverse roots of averages of ggᵀ and gᵀg.

        L' = β₂L + (1−β₂)ggᵀ;  R' = β₂R + (1−β₂)gᵀg;  every k steps their roots L'^(−1/4), R'^(−1/4)
        u = ‖d‖/‖L^(−1/4)·g·R^(−1/4)‖ · L^(−1/4)·g·R^(−1/4);  m' = β₁m + u;  θ' = (1−αλ)θ − αm'

    d is the step of `graft`, whose length u takes ("none": its own): "sgd", "sign", "adagrad" or "rmsprop". Before step
    `start` the steps are d's. A side of more than `max_size` has no root, the other has −1/2 then; without either, and
    for tensors that are no matrices, u is d. A convolution is the matrix of its first dimension by all others.
    `epsilon_of` says what ε is: what L and R begin with ("start", Gupta et al.), added at each root as it stands
    ("one") or times the largest eigenvalue ("largest"), or above the least where that is negative ("least"). The other
    options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    of_matrices = True
    rule = staticmethod(shampoo)
    learning_rate = Number(1e-3, non_negative, "lr", "α ≥ 0")
    beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")
    beta_2 = Number(0.999, unit_interval, "betas[1]", "β₂ in [0, 1]: with 1 sums")
    epsilon = Number(1e-6, non_negative, "eps", "ε ≥ 0")
    graft_epsilon = Number(1e-10, non_negative, "graft_eps", "ε' ≥ 0")
    wdecay = Number(0.0, non_negative, "weight_decay", "λ ≥ 0")  # type: ignore[assignment]
    frequency = Number(1000, positive_integer, meaning="k: how many steps roots stay")
    start = Number(25, whole_number, meaning="the first step that is not d's")
    max_size = Number(8192, positive_integer, meaning="the longest side that has a root")
    graft = Number("sgd", graft_name, meaning="the rule whose step's length counts")
    epsilon_of = Number("start", place_of_epsilon, "eps_of", "what ε is")
    nesterov = Number(False, flag, meaning="Nesterov's form")
    decouple = Number(True, flag, "decoupled", "whether the decay is none of u's")
