"""SOAP beside pytorch_optimizer and heavyball.

Matrices are squares. Of others one of the first products, g·gᵀ or gᵀ·g, has null vectors, which rounding chooses: the
same rule from sums in another order is off by the size of a step. Convolutions are left out: pytorch_optimizer has a
basis for each of their sides, and heavyball merges sides. heavyball's numbers are in torch's default format; its
columns of v keep their places, those of pytorch_optimizer are sorted: v is not compared.

pytorch_optimizer makes QR in float32 whatever the weights are: without `in_their_own_precision` the first row is 2e-8
apart, and every row where eigenvalues are near each other more. The step is counted for a group: no row has tensors
without gradients.
"""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import torch
from agreement_cases import ADAMW, DECAYS, Numbers, falling, in_torch_words, replace, rows

SQUARES = ((1,), (7,), (5, 5), (16, 16), (33, 33))


def in_their_own_precision(module: Any, dtype: torch.dtype) -> None:
    """A module whose `torch.float32` is the weights' format."""
    module.torch = SimpleNamespace(**{**vars(torch), "float32": dtype})


def words(numbers: Numbers) -> Numbers:
    own = {"frequency": "precondition_frequency", "max_size": "max_precondition_dim"}
    dropped = ("floor", "heavyball")
    return {
        own.get(word, word): number for word, number in in_torch_words(numbers).items() if word not in dropped
    }  # fmt: skip


def dtype_of(groups: list[Any]) -> torch.dtype:
    return groups[0]["params"][0].dtype


def pytorch_optimizers(groups: list[Any], numbers: Numbers) -> Any:
    module: Any = importlib.import_module("pytorch_optimizer.optimizer.soap")
    in_their_own_precision(module, dtype_of(groups))
    return module.SOAP(groups, **numbers)


def heavyballs(groups: list[Any], numbers: Numbers) -> Any:
    heavyball: Any = importlib.import_module("heavyball")
    heavyball.utils.compile_mode = None
    named = {"max_precond_dim" if word == "max_precondition_dim" else word: n for word, n in numbers.items()}
    own = {"storage_dtype": str(dtype_of(groups)).removeprefix("torch."), "merge_dims": False, "compile_step": False}
    return heavyball.SOAP(groups, **named, **own)


STATES = {"SOAP": (("exp_avg",), ())}
WORDS = {"SOAP": words}
PYTORCH_OPTIMIZER = replace(
    ADAMW, rule="SOAP", package="pytorch_optimizer", make=pytorch_optimizers, shapes=SQUARES, float32_ulp=8.0,
    numbers={
        "learning_rate": 3e-3, "beta_1": 0.95, "beta_2": 0.95, "epsilon": 1e-8, "wdecay": 0.01, "shampoo_beta": 0.95,
        "frequency": 10, "floor": 0.0,
    },
)  # fmt: skip
HEAVYBALL = replace(
    PYTORCH_OPTIMIZER, package="heavyball", make=heavyballs, float32_ulp=8.0,
    numbers={**PYTORCH_OPTIMIZER.numbers, "beta_1": 0.9, "frequency": 2, "floor": 1e-8, "heavyball": True},
)  # fmt: skip


def of_both() -> dict[str, Numbers]:
    return {
        "defaults": {},
        "weight_decay": {"wdecay": 0.3},
        "betas_eps": {"beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01, "shampoo_beta": 0.8},
        "every_step": {"frequency": 1},
        "max_size": {"max_size": 16},
        "falling": {"rates": falling, "wdecay": 0.3},
    }


CASES = [
    *rows(
        PYTORCH_OPTIMIZER, **of_both(), biased={"correct_bias": False}, two_groups={"groups": DECAYS},
    ),
    *rows(HEAVYBALL, **of_both()),
]  # fmt: skip
