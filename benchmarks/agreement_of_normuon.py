"""NorMuon beside pytorch_optimizer, of whose Newton–Schulz, in bfloat16, the weights' own format is made here.

A convolution is one matrix for both. In the authors' program (zichongli5/NorMuon) its rows are those of each kernel.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from agreement_cases import ADAMW, DECAYS, Numbers, falling, in_torch_words, replace, rows

OWN = {"momentum_coef": "momentum", "beta_2": "beta2", "match_rms": "update_scale"}


def words(numbers: Numbers) -> Numbers:
    plain = {word: number for word, number in numbers.items() if word not in ("beta_2", "units")}
    named = {OWN.get(word, word): number for word, number in in_torch_words(plain).items()}
    scale = "match_rms" if numbers.get("match_rms", True) else "preserve_norm"
    return named | {"beta2": numbers["beta_2"], "update_scale": scale}


def pytorch_optimizers(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    module: Any = importlib.import_module("pytorch_optimizer.optimizer.muon.normuon")
    base: Any = importlib.import_module("pytorch_optimizer.optimizer.muon.base")
    matrix: Any = importlib.import_module("pytorch_optimizer.optimizer.utils.matrix")
    exact = partial(matrix.zero_power_via_newton_schulz_5, dtype=groups[0]["params"][0].dtype)
    module.zero_power_via_newton_schulz_5 = base.zero_power_via_newton_schulz_5 = exact
    return module.NorMuon([{**group, "use_muon": True} for group in groups], **numbers, foreach=foreach)


STATES = {"NorMuon": (("momentum_buffer",), ())}
WORDS = {"NorMuon": words}
CASE = replace(
    ADAMW, rule="NorMuon", package="pytorch_optimizer", make=pytorch_optimizers, float32_ulp=3.0,
    shapes=((3, 5), (2, 3, 4, 5), (33, 17), (16, 16)),
    numbers={
        "learning_rate": 0.02, "momentum_coef": 0.95, "beta_2": 0.95, "epsilon": 1e-10, "wdecay": 0.0,
        "units": "float32",
    },
)  # fmt: skip

CASES = rows(
    CASE, defaults={}, of_norm={"match_rms": False}, plain_momentum={"nesterov": False, "wdecay": 0.3},
    betas_eps={"momentum_coef": 0.6, "beta_2": 0.8, "epsilon": 0.01}, steps={"ns_steps": 3},
    weight_decay={"wdecay": 0.3}, falling={"rates": falling, "wdecay": 0.3}, two_groups={"groups": DECAYS},
    foreach={"make": partial(pytorch_optimizers, foreach=True)},
)  # fmt: skip
