"""Rows of agreement.py: StableAdamW, beside optimi's and pytorch_optimizer's."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from agreement_cases import ADAMW, DECAYS, Numbers, falling, in_torch_words, rows, up_and_down


def of_optimi(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    from optimi import StableAdamW  # type: ignore[import-not-found]

    return StableAdamW(groups, **numbers, foreach=foreach, triton=False)


def of_pytorch_optimizer(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    from pytorch_optimizer import StableAdamW  # type: ignore[import-not-found]

    return StableAdamW(groups, **numbers, foreach=foreach)


def words(numbers: Numbers) -> Numbers:
    return {"weight_decouple" if word == "decouple" else word: n for word, n in in_torch_words(numbers).items()}


STATES = {"StableAdamW": (("exp_avg", "exp_avg_sq"), ())}
WORDS = {"StableAdamW": words}
OPTIMI = replace(
    ADAMW, rule="StableAdamW", package="torch-optimi", make=of_optimi,
    numbers={"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 1e-6, "wdecay": 0.01},
)  # fmt: skip
PYTORCH = replace(OPTIMI, package="pytorch_optimizer", make=of_pytorch_optimizer)
CASES = [
    *rows(
        OPTIMI, defaults={}, foreach={"make": partial(of_optimi, foreach=True)}, weight_decay={"wdecay": 0.3},
        no_decay={"wdecay": 0.0}, betas_eps={"beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.25},
        up_and_down={"rates": up_and_down, "wdecay": 0.3}, falling={"rates": falling}, weights_of_0={"zeros": True},
        two_groups={"groups": DECAYS},
    ),
    *rows(
        PYTORCH, defaults={"epsilon": 1e-8}, foreach={"make": partial(of_pytorch_optimizer, foreach=True)},
        weight_decay={"wdecay": 0.3}, coupled_decay={"wdecay": 0.3, "decouple": False},
        betas_eps={"beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.25}, up_and_down={"rates": up_and_down, "wdecay": 0.3},
        weights_of_0={"zeros": True}, two_groups={"groups": DECAYS},
    ),
]  # fmt: skip
