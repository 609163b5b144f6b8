"""Adan beside timm and pytorch_optimizer.

Both count the steps of a group, neon those of a tensor: no tensor is left without a gradient here. timm keeps
the gradient of before with its sign turned, as neon does, and it is compared; pytorch_optimizer calls it otherwise.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from agreement_cases import ADAMW, DECAYS, Numbers, in_torch_words, of_timm, replace, rows, up_and_down


def words(numbers: Numbers) -> Numbers:
    """Three betas."""
    named = in_torch_words(numbers)
    return named | {"betas": (*named["betas"], named.pop("beta3"))}


def timms(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    return of_timm("Adan", "adan")(groups, **numbers, foreach=foreach)


def pytorch_optimizers(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    from pytorch_optimizer import Adan  # type: ignore[import-not-found]

    named = {"weight_decouple" if word == "no_prox" else word: number for word, number in numbers.items()}
    return Adan(groups, **named, foreach=foreach)


STATES = {"Adan": (("exp_avg", "exp_avg_diff", "exp_avg_sq", "neg_pre_grad"), ())}
WORDS = {"Adan": words}
TIMM = replace(
    ADAMW, rule="Adan", package="timm", make=timms, float32_ulp=8.0,
    numbers={"learning_rate": 0.01, "beta_1": 0.98, "beta_2": 0.92, "beta_3": 0.99, "epsilon": 1e-8},
)  # fmt: skip
PYTORCH_OPTIMIZER = replace(TIMM, package="pytorch_optimizer", make=pytorch_optimizers)


def of_both() -> dict[str, Numbers]:
    return {
        "defaults": {},
        "weight_decay": {"wdecay": 0.3},
        "no_prox": {"wdecay": 0.3, "no_prox": True},
        "betas_eps": {"beta_1": 0.6, "beta_2": 0.7, "beta_3": 0.8, "epsilon": 0.01},
        "weights_of_0": {"zeros": True},
        "up_and_down": {"rates": up_and_down, "wdecay": 0.3},
        "two_groups": {"groups": DECAYS},
    }


CASES = [
    *rows(TIMM, **of_both(), foreach={"make": partial(timms, foreach=True), "wdecay": 0.3}),
    *rows(PYTORCH_OPTIMIZER, **of_both(), foreach={"make": partial(pytorch_optimizers, foreach=True), "wdecay": 0.3}),
]
