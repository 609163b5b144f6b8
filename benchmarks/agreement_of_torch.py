"""Rules of torch.optim that few use: NAdam, RAdam, AdaMax, ASGD, Rprop."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from agreement_cases import ADAMW, DECAYS, Case, Numbers, falling, in_torch_words, replace, rows, up_and_down

CLASSES = {"AdaMax": "Adamax"}


def torchs(groups: list[Any], numbers: Numbers, *, rule: str, foreach: bool = False) -> Any:
    return getattr(torch.optim, CLASSES.get(rule, rule))(groups, **numbers, foreach=foreach)


def words_of_asgd(numbers: Numbers) -> Numbers:
    return {"alpha" if word == "power" else word: number for word, number in in_torch_words(numbers).items()}


def words_of_rprop(numbers: Numbers) -> Numbers:
    """`shrink` and `grow` are torch's etas, `least` and `most` its step_sizes."""
    pairs = {"etas": ("shrink", "grow"), "step_sizes": ("least", "most")}
    found = {word: tuple(numbers[name] for name in names) for word, names in pairs.items() if names[0] in numbers}
    return {"lr": numbers["learning_rate"], **found}


def of(rule: str, **numbers: Any) -> Case:
    return replace(ADAMW, rule=rule, make=partial(torchs, rule=rule), numbers=numbers)


STATES = {
    "NAdam": (("exp_avg", "exp_avg_sq", "mu_product"), ()),
    "RAdam": (("exp_avg", "exp_avg_sq"), ()),
    "AdaMax": (("exp_avg", "exp_inf"), ()),
    "ASGD": (("eta", "mu", "ax"), ()),
    "Rprop": (("prev", "step_size"), ()),
}
WORDS = {
    "NAdam": in_torch_words, "RAdam": in_torch_words, "AdaMax": in_torch_words, "ASGD": words_of_asgd,
    "Rprop": words_of_rprop,
}  # fmt: skip
OF_ADAM = {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8}
LIKE_ADAM = {
    "weight_decay": {"wdecay": 0.3}, "betas_eps": {"beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01},
    "up_and_down": {"rates": up_and_down}, "two_groups": {"groups": DECAYS}, "gradients_missing": {"absent": True},
}  # fmt: skip


def cases(case: Case, **more: Numbers) -> list[Case]:
    foreach = {"make": partial(case.make, foreach=True)}
    return rows(case, defaults={}, foreach=foreach, **{name: {**change} for name, change in more.items()})


CASES = [
    *cases(of("NAdam", **OF_ADAM), **LIKE_ADAM, momentum_decay={"momentum_decay": 1.0}),
    *cases(of("RAdam", **OF_ADAM), **LIKE_ADAM),
    *cases(of("AdaMax", **OF_ADAM), **LIKE_ADAM),
    *cases(
        replace(of("ASGD", learning_rate=0.01), float32_ulp=16.0),  # torch's loop rounds weights twice
        t0={"t0": 5.0}, numbers={"lambd": 0.05, "power": 0.5, "t0": 0.0},
        weight_decay={"wdecay": 0.3}, up_and_down={"rates": up_and_down, "t0": 3.0}, falling={"rates": falling},
        two_groups={"groups": DECAYS}, gradients_missing={"absent": True, "t0": 3.0},
    ),
    *cases(
        of("Rprop", learning_rate=0.01), bounds={"least": 0.005, "most": 0.02}, etas={"shrink": 0.6, "grow": 1.5},
        falling={"rates": falling}, gradients_missing={"absent": True},
    ),
]  # fmt: skip
