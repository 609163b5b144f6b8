"""Rows of agreement.py: Signum and signSGD, beside pytorch_optimizer's SignSGD."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from agreement_cases import ADAMW, DECAYS, Numbers, falling, in_torch_words, rows, up_and_down


def sign_sgd(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    from pytorch_optimizer import SignSGD  # type: ignore[import-not-found]

    return SignSGD(groups, **numbers, foreach=foreach)


def words(numbers: Numbers) -> Numbers:
    names = {"momentum_coef": "momentum", "decouple": "weight_decouple"}
    return {names.get(word, word): number for word, number in in_torch_words(numbers).items()}


STATES = {"Signum": (("momentum_buffer",), ())}
WORDS = {"Signum": words}
SIGNUM = replace(
    ADAMW, rule="Signum", package="pytorch_optimizer", make=sign_sgd,
    numbers={"learning_rate": 0.01, "momentum_coef": 0.9},
)  # fmt: skip
CASES = rows(
    SIGNUM, defaults={}, foreach={"make": partial(sign_sgd, foreach=True)}, weight_decay={"wdecay": 0.3},
    coupled_decay={"wdecay": 0.3, "decouple": False}, momentum_06={"momentum_coef": 0.6},
    signSGD={"momentum_coef": 0.0}, signSGD_weight_decay={"momentum_coef": 0.0, "wdecay": 0.3},
    signSGD_coupled_decay={"momentum_coef": 0.0, "wdecay": 0.3, "decouple": False},
    up_and_down={"rates": up_and_down, "wdecay": 0.3}, falling={"rates": falling}, weights_of_0={"zeros": True},
    two_groups={"groups": DECAYS}, gradients_missing={"absent": True},
)  # fmt: skip
