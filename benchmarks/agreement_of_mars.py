"""Rows of agreement.py: MARS, beside timm's Mars and pytorch_optimizer's MARS."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from agreement_cases import ADAMW, DECAYS, Numbers, falling, in_torch_words, of_timm, rows, up_and_down


def of_timms(groups: list[Any], numbers: Numbers) -> Any:
    return of_timm("Mars", "mars")(groups, **without(numbers, "first_difference"))


def of_pytorch_optimizer(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    """Vectors with the numbers of the others, in each group; and without the 1e-15 that it adds to every v."""
    from pytorch_optimizer import MARS  # type: ignore[import-not-found]

    numbers = without(numbers, "first_difference")
    decay = numbers.get("weight_decay", 0.0)
    alike = {"lr_1d": numbers["lr"], "betas_1d": numbers["betas"], "weight_decay_1d": decay}
    groups = [{"weight_decay_1d": group.get("weight_decay", decay), **group} for group in groups]
    optimizer = MARS(groups, **numbers, **alike, foreach=foreach)
    for name in ("apply_ams_bound", "apply_ams_bound_foreach"):
        setattr(optimizer, name, partial(getattr(optimizer, name), exp_avg_sq_eps=0.0))
    return optimizer


def without(numbers: Numbers, *words: str) -> Numbers:
    return {word: number for word, number in numbers.items() if word not in words}


STATES = {"MARS": (("exp_avg", "exp_avg_sq", "last_grad"), ())}
WORDS = {"MARS": in_torch_words}
TIMM = replace(
    ADAMW, rule="MARS", package="timm", make=of_timms,
    numbers={"learning_rate": 0.01, "beta_1": 0.95, "beta_2": 0.99, "epsilon": 1e-8, "gamma": 0.025},
)  # fmt: skip
# Its ε is another, added before the correction: so small that it is in no digit.
PYTORCH = replace(
    TIMM, package="pytorch_optimizer", make=of_pytorch_optimizer,
    numbers=TIMM.numbers | {"first_difference": True, "epsilon": 1e-20},
)  # fmt: skip
LION: Numbers = {"mars_type": "lion", "wdecay": 0.3}
CASES = [
    *rows(
        TIMM, defaults={}, weight_decay={"wdecay": 0.3}, gamma={"gamma": 0.5}, optimize_1d={"optimize_1d": True},
        lion=dict(LION), lion_1d=LION | {"optimize_1d": True},
        betas_eps={"beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01}, up_and_down={"rates": up_and_down, "wdecay": 0.3},
        falling={"rates": falling}, weights_of_0={"zeros": True}, two_groups={"groups": DECAYS},
        gradients_missing={"absent": True},
    ),
    *rows(
        PYTORCH, defaults={}, foreach={"make": partial(of_pytorch_optimizer, foreach=True)},
        weight_decay={"wdecay": 0.3}, gamma={"gamma": 0.5}, optimize_1d={"optimize_1d": True},
        lion=dict(LION), lion_1d=LION | {"optimize_1d": True},
        betas={"beta_1": 0.6, "beta_2": 0.9}, up_and_down={"rates": up_and_down, "wdecay": 0.3},
        weights_of_0={"zeros": True}, two_groups={"groups": DECAYS},
    ),
]  # fmt: skip
