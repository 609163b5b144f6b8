"""AdaBelief beside timm, adabelief-pytorch and pytorch_optimizer.

The first two rectify where nothing is said, and adabelief-pytorch prints what it was given. pytorch_optimizer counts
the steps of a group: no tensor is left without a gradient in its rows.
"""

from __future__ import annotations

import contextlib
import io
from functools import partial
from typing import Any

from agreement_cases import ADAMW, DECAYS, Numbers, in_torch_words, of_timm, replace, rows, up_and_down


def timms(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    named = {"decoupled_decay" if word == "decouple" else word: number for word, number in numbers.items()}
    return of_timm("AdaBelief", "adabelief")(groups, **{"rectify": False, **named}, foreach=foreach)


def authors(groups: list[Any], numbers: Numbers) -> Any:
    from adabelief_pytorch import AdaBelief  # type: ignore[import-not-found]

    named = {"weight_decouple" if word == "decouple" else word: number for word, number in numbers.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        return AdaBelief(groups, **{"rectify": False, **named}, print_change_log=False)


def pytorch_optimizers(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    from pytorch_optimizer import AdaBelief  # type: ignore[import-not-found]

    named = {"weight_decouple" if word == "decouple" else word: number for word, number in numbers.items()}
    return AdaBelief(groups, **named, foreach=foreach)


STATES = {"AdaBelief": (("exp_avg", "exp_avg_var"), ())}
WORDS = {"AdaBelief": in_torch_words}
TIMM = replace(
    ADAMW, rule="AdaBelief", package="timm", make=timms,
    numbers={"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-16},
)  # fmt: skip
AUTHORS = replace(TIMM, package="adabelief-pytorch", make=authors)
PYTORCH_OPTIMIZER = replace(TIMM, package="pytorch_optimizer", make=pytorch_optimizers)
RECTIFIED = {"rectify": True, "beta_2": 0.9}
OF_ALL: dict[str, Numbers] = {
    "defaults": {},
    "weight_decay": {"wdecay": 0.3},
    "coupled": {"wdecay": 0.3, "decouple": False},
    "betas_eps": {"beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01},
    "rectified": RECTIFIED,
    "rectified_coupled": {**RECTIFIED, "wdecay": 0.3, "decouple": False},
    "no_first_steps": {**RECTIFIED, "degenerated_to_sgd": False, "wdecay": 0.3},
    "never_adapts": {"rectify": True, "beta_2": 0.6},
    "weights_of_0": {"zeros": True},
    "up_and_down": {"rates": up_and_down, "wdecay": 0.3},
    "two_groups": {"groups": DECAYS},
}


def of_all() -> dict[str, Numbers]:
    return {name: dict(numbers) for name, numbers in OF_ALL.items()}


CASES = [
    *rows(
        TIMM, **of_all(), foreach={"make": partial(timms, foreach=True)},
        foreach_rectified={"make": partial(timms, foreach=True), **RECTIFIED}, gradients_missing={"absent": True},
    ),
    *rows(AUTHORS, **of_all(), gradients_missing={"absent": True}),
    *rows(PYTORCH_OPTIMIZER, **of_all(), foreach={"make": partial(pytorch_optimizers, foreach=True)}),
]  # fmt: skip
