"""Drafts of SOAP, Shampoo and NorMuon beside their references. To go once neon.optimizers has the rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import reference
import torch
from reference_normuon import newton_schulz

from neon.optimizers.normuon import normuon
from neon.optimizers.shampoo import shampoo
from neon.optimizers.soap import soap

SHAPES = ((8, 5), (5, 8), (16, 16), (17, 33), (1, 4), (4, 6))
STEPS = 20


def gradients(shape: tuple[int, int]) -> list[np.ndarray]:
    """Of (4, 6) one number for all elements: rank 1."""
    rng = np.random.default_rng(3)
    made = [rng.standard_normal(shape) for _ in range(STEPS)]
    return [np.full(shape, g.flat[0]) for g in made] if shape == (4, 6) else made


def compared(name: str, numbers: dict[str, Any], shape: tuple[int, int], dtype: torch.dtype) -> float:
    """The largest difference of weights and states in twenty steps, relative to the largest that each had."""
    by_hand: Any = reference.REFERENCES[name](**numbers)
    weights = [np.random.default_rng(1).standard_normal(shape)]
    w, states, worst, scales = torch.tensor(weights[0], dtype=dtype), None, 0.0, [0.0] * 9
    absent = name in ("SOAP", "Shampoo") and not sides(w, by_hand.max_size)["rotate_rows"]
    for t, g in enumerate(gradients(shape), 1):
        by_hand.step(weights, [g])
        w, *states = DRAFTS[name](by_hand, w, torch.tensor(g, dtype=dtype), states, t)
        kept = states[: KEPT[name]] + states[KEPT[name] + absent :]
        for at, (got, want) in enumerate(zip([w, *kept], [*weights, *by_hand.state[0]], strict=False)):
            scales[at] = max(scales[at], float(np.abs(want).max()), 1e-300)
            worst = max(worst, float(np.abs(got.double().numpy() - want).max()) / scales[at])
    return worst


def sides(w: torch.Tensor, most: int) -> dict[str, bool]:
    return {"rotate_rows": w.shape[0] <= most, "rotate_columns": w.shape[1] <= most}


def zeros(w: torch.Tensor, like: int) -> list[Any]:
    squares = [torch.zeros(s, s, dtype=w.dtype) for s in (*w.shape, *w.shape)]
    return [torch.zeros_like(w) for _ in range(like)] + squares


def soaps(made: Any, w: Any, g: Any, states: Any, t: int) -> Any:
    return soap(
        w, g, *(states or zeros(w, 2)), lr=made.learning_rate, betas=(made.beta_1, made.beta_2), eps=made.epsilon,
        weight_decay=made.wdecay, shampoo_beta=made.shampoo_beta, every=made.frequency, correct_bias=made.correct_bias,
        heavyballs=made.heavyball, floor=made.floor, step=t, **sides(w, made.max_size),
    )  # fmt: skip


def shampoos(made: Any, w: Any, g: Any, states: Any, t: int) -> Any:
    return shampoo(
        w, g, *(states or zeros(w, 3)), lr=made.learning_rate, betas=(made.beta_1, made.beta_2), eps=made.epsilon,
        graft_eps=made.graft_epsilon, weight_decay=made.wdecay, every=made.frequency, start=made.start,
        graft=made.graft, eps_of=made.epsilon_of, nesterov=made.nesterov, decoupled=made.decouple, step=t,
        **sides(w, made.max_size),
    )  # fmt: skip


def normuons(made: Any, w: Any, g: Any, states: Any, t: int) -> Any:
    rows, columns = w.shape
    scale = 0.2 * (rows * columns) ** 0.5 if made.match_rms else max(1.0, rows / columns) ** 0.5
    return normuon(
        w, g, *(states or (0.0 * w, 0.0 * w[:, :1])), lr=made.learning_rate, momentum=made.momentum_coef,
        beta2=made.beta_2, eps=made.epsilon, weight_decay=made.wdecay, nesterov=made.nesterov,
        keep_norm=not made.match_rms, scale=scale,
        orthogonalize=lambda m: torch.tensor(newton_schulz(m.double().numpy(), made.steps)).to(m.dtype),
    )  # fmt: skip


DRAFTS = {"SOAP": soaps, "Shampoo": shampoos, "NorMuon": normuons}
KEPT = {"SOAP": 2, "Shampoo": 3, "NorMuon": 2}  # states of the weight's shape, before those of pairs
CASES = [
    (name, case, numbers)
    for name in DRAFTS
    for case, numbers in (reference.REFERENCES[name].cases | reference.REFERENCES[name].tuned).items()
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("name", "case", "numbers"), CASES, ids=[case for _, case, _ in CASES])
def test_a_draft_steps_as_its_reference(name: str, case: str, numbers: Any, shape: tuple[int, int]) -> None:
    assert compared(name, numbers, shape, torch.float64) <= 1e-12
    assert compared(name, numbers, shape, torch.float32) / 2**-23 <= reference.REFERENCES[name].float32_ulp


@pytest.mark.parametrize(("name", "case", "numbers"), CASES, ids=[case for _, case, _ in CASES])
def test_nothing_moves_without_gradients_and_a_nan_shows(name: str, case: str, numbers: Any) -> None:
    made: Any = reference.REFERENCES[name](**numbers | {"wdecay": 0.0})
    first, states = torch.ones(5, 3), None
    w = first
    for t in range(1, 8):
        w, *states = DRAFTS[name](made, w, torch.zeros(5, 3), states, t)
    assert torch.equal(w, first)
    for t in range(8, 10):
        w, *states = DRAFTS[name](made, w, torch.full((5, 3), torch.nan), states, t)
    assert w.isnan().all()
