"""ADOPT beside timm and pytorch_optimizer.

timm's exponent of the bound is 0.333 where nothing is said. pytorch_optimizer raises the count of all steps, the first
included, to 0.25: it is given the authors' bound. Its first step decays where the decay is decoupled, and no option
changes that: no such row is here. It counts the steps of a group, and no tensor is left without a gradient.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from agreement_cases import ADAMW, DECAYS, Numbers, in_torch_words, of_timm, replace, rows, up_and_down


def words(numbers: Numbers) -> Numbers:
    named = in_torch_words(numbers)
    return named | {"clip_exp": named.pop("clip_exponent", 0.25)}


def timms(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    named = {"decoupled" if word == "decouple" else word: number for word, number in numbers.items()}
    return of_timm("Adopt", "adopt")(groups, **named, foreach=foreach)


def pytorch_optimizers(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    from pytorch_optimizer import ADOPT  # type: ignore[import-not-found]

    named = {"weight_decouple" if word == "decouple" else word: number for word, number in numbers.items()}
    exponent = named.pop("clip_exp")
    bound = None if exponent is None else lambda step: (step - 1) ** exponent
    return ADOPT(groups, **named, clip_lambda=bound, foreach=foreach)


STATES = {"ADOPT": (("exp_avg", "exp_avg_sq"), ())}
WORDS = {"ADOPT": words}
TIMM = replace(
    ADAMW, rule="ADOPT", package="timm", make=timms, float32_ulp=8.0,
    numbers={"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.9999, "epsilon": 1e-6},
)  # fmt: skip
PYTORCH_OPTIMIZER = replace(TIMM, package="pytorch_optimizer", make=pytorch_optimizers)


def of_both() -> dict[str, Numbers]:
    return {
        "defaults": {},
        "weight_decay": {"wdecay": 0.3},
        "betas_eps": {"beta_1": 0.6, "beta_2": 0.7, "epsilon": 0.2},
        "bound": {"clip_exponent": 0.1},
        "bound_1": {"clip_exponent": 0.0},
        "no_bound": {"clip_exponent": None},
        "weights_of_0": {"zeros": True},
        "up_and_down": {"rates": up_and_down, "wdecay": 0.3},
        "two_groups": {"groups": DECAYS},
    }


CASES = [
    *rows(
        TIMM, **of_both(), decoupled={"wdecay": 0.3, "decouple": True}, gradients_missing={"absent": True},
        foreach={"make": partial(timms, foreach=True), "wdecay": 0.3, "decouple": True},
    ),
    *rows(PYTORCH_OPTIMIZER, **of_both(), foreach={"make": partial(pytorch_optimizers, foreach=True), "wdecay": 0.3}),
]  # fmt: skip
