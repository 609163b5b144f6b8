"""LARS beside timm and pytorch_optimizer.

timm adapts nothing where the weight decay is 0, but for always_adapt, and clips ratios that it adapts alone.
pytorch_optimizer has no ε, leaves vectors alone, and dampens the first step too: no row of it has dampening.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from agreement_cases import ADAMW, DECAYS, Numbers, in_torch_words, of_timm, replace, rows, up_and_down

OWN = {"momentum_coef": "momentum", "trust_coefficient": "trust_coeff"}


def words(numbers: Numbers) -> Numbers:
    return {OWN.get(word, word): number for word, number in in_torch_words(numbers).items()}


def timms(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    return of_timm("Lars", "lars")(groups, **{"always_adapt": True, **numbers}, foreach=foreach)


def pytorch_optimizers(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    from pytorch_optimizer import LARS  # type: ignore[import-not-found]

    named = {"trust_coefficient" if word == "trust_coeff" else word: number for word, number in numbers.items()}
    del named["eps"], named["adapt_vectors"]
    return LARS(groups, **named, foreach=foreach)


STATES = {"LARS": (("momentum_buffer",), ())}
WORDS = {"LARS": words}
TIMM = replace(
    ADAMW, rule="LARS", package="timm", make=timms, float32_ulp=8.0,
    numbers={"learning_rate": 1.0, "momentum_coef": 0.9, "trust_coefficient": 0.001, "epsilon": 1e-8},
)  # fmt: skip
PYTORCH_OPTIMIZER = replace(
    TIMM, package="pytorch_optimizer", make=pytorch_optimizers,
    numbers={**TIMM.numbers, "epsilon": 0.0, "adapt_vectors": False},
)  # fmt: skip


def of_both() -> dict[str, Numbers]:
    return {
        "defaults": {},
        "weight_decay": {"wdecay": 0.3},
        "nesterov": {"wdecay": 0.3, "nesterov": True},
        "no_momentum": {"wdecay": 0.3, "momentum_coef": 0.0},
        "coefficient": {"trust_coefficient": 0.05},
        "weights_of_0": {"zeros": True, "learning_rate": 0.01},
        "up_and_down": {"rates": up_and_down, "wdecay": 0.3},
        "two_groups": {"groups": DECAYS},
        "gradients_missing": {"absent": True, "wdecay": 0.3},
    }


CASES = [
    *rows(
        TIMM, **of_both(), dampening={"dampening": 0.25, "wdecay": 0.3}, eps={"epsilon": 0.5},
        trust_clip={"trust_clip": True, "trust_coefficient": 0.5, "learning_rate": 0.3},
        trust_clip_up_and_down={"trust_clip": True, "rates": up_and_down, "wdecay": 0.3},
        not_always={"always_adapt": False, "learning_rate": 0.01, "groups": DECAYS, "trust_clip": True},
        foreach={"make": partial(timms, foreach=True), "wdecay": 0.3, "nesterov": True},
    ),
    *rows(PYTORCH_OPTIMIZER, **of_both(), foreach={"make": partial(pytorch_optimizers, foreach=True), "wdecay": 0.3}),
]  # fmt: skip
