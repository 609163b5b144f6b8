"""Cautious, Lookahead, Centralized and the forms of weight decay beside timm, pytorch_optimizer and optimi."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from agreement_cases import ADAMW, DECAYS, Case, Numbers, falling, in_torch_words, of_timm, rows, up_and_down

from neon.optimizers import AdamW, Cautious, Centralized, GradientDescentMomentum, Lion, Lookahead, Optimizer

STATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Cautious": (("exp_avg", "exp_avg_sq"), ()),
    "Lookahead": (("slow_weight", "exp_avg", "exp_avg_sq"), ()),
    "Centralized": (("exp_avg", "exp_avg_sq"), ()),
    "DecayedAdamW": ((), ()),  # optimi's moments are those after the corrections
}
WORDS = dict.fromkeys(STATES, in_torch_words)


# -- the packages ----------------------------------------------------------------------------------


def timms(groups: list[Any], numbers: Numbers, *, name: str, module: str, **options: Any) -> Any:
    return of_timm(name, module)(groups, **numbers, **options)


def timms_lookahead(groups: list[Any], numbers: Numbers) -> Any:
    """Around torch's AdamW; slow weights begin, as published, where weights do: timm has them k steps later."""

    class FromFirst(of_timm("Lookahead", "lookahead")):  # type: ignore[misc]
        begun = False

        def step(self, closure: Any = None) -> Any:
            first = {p: p.detach().clone() for group in self.param_groups for p in group["params"]}
            loss = super().step(closure)
            for p, start in () if self.begun else first.items():
                self._base_optimizer.state[p]["lookahead_slow_buff"] = start
            self.begun = True
            return loss

    k, alpha, base = _apart(numbers)
    made: Any = FromFirst(torch.optim.AdamW(groups, **base, foreach=False), k=k, alpha=alpha)
    made.state = made._base_optimizer.state
    return made


def lookahead_of_pytorch_optimizer(groups: list[Any], numbers: Numbers) -> Any:
    from pytorch_optimizer import Lookahead as Theirs  # type: ignore[import-not-found]

    k, alpha, base = _apart(numbers)
    return Theirs(torch.optim.AdamW(groups, **base, foreach=False), k=k, alpha=alpha)


def _apart(numbers: Numbers) -> tuple[int, float, Numbers]:
    base = {**numbers}
    return base.pop("k"), base.pop("alpha"), base


class _CentralizedAdamW(torch.optim.AdamW):
    def step(self, closure: Any = None) -> Any:
        from pytorch_optimizer.optimizer.gradient_centralization import (  # type: ignore[import-not-found]
            centralize_gradient,
        )

        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    centralize_gradient(p.grad)
        return super().step(closure)


def centralized_adamw(groups: list[Any], numbers: Numbers) -> Any:
    return _CentralizedAdamW(groups, **numbers, foreach=False)


def optimis(groups: list[Any], numbers: Numbers) -> Any:
    import optimi  # type: ignore[import-not-found]

    warnings.filterwarnings("ignore", message="You are using weight_decay up to")
    return optimi.AdamW(groups, **_without_form(numbers), decouple_lr=True, foreach=False, triton=False)


def timms_corrected(groups: list[Any], numbers: Numbers) -> Any:
    made = of_timm("AdamWLegacy", "adamw")
    return made(groups, **_without_form(numbers), corrected_weight_decay=True, foreach=False)


def _without_form(numbers: Numbers) -> Numbers:
    return {word: number for word, number in numbers.items() if word not in ("decay_form", "first")}


# -- neon's ----------------------------------------------------------------------------------------


def around_adamw(numbers: Numbers, *, kind: Any) -> Optimizer:
    own = {word: numbers[word] for word in ("k", "alpha") if word in numbers}
    return kind(AdamW(**{word: number for word, number in numbers.items() if word not in own}), **own)


def cautious_lion(numbers: Numbers) -> Optimizer:
    return Cautious(Lion(**numbers))


def cautious_momentum(numbers: Numbers, *, nesterov: bool = False) -> Optimizer:
    rate, momentum = numbers["learning_rate"], numbers["beta_1"]
    inner = GradientDescentMomentum(rate, momentum, nesterov=nesterov, wdecay=numbers["wdecay"], decay_form="decoupled")
    return Cautious(inner)


def decayed(numbers: Numbers) -> Optimizer:
    return AdamW(**{word: number for word, number in numbers.items() if word != "first"})


CAUTIOUS = replace(
    ADAMW, rule="Cautious", package="timm", by=partial(around_adamw, kind=Cautious), float32_ulp=9.0,
    make=partial(timms, name="AdamWLegacy", module="adamw", caution=True, foreach=False),
)  # fmt: skip
LION = replace(
    CAUTIOUS, by=cautious_lion, around={"rule": "Lion", "beta_1": 0.9, "beta_2": 0.99},
    make=partial(timms, name="Lion", module="lion", caution=True, foreach=False),
    numbers={"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.99, "wdecay": 0.3},
)  # fmt: skip
MOMENTUM = replace(
    CAUTIOUS, by=cautious_momentum, around={"rule": "GradientDescentMomentum", "momentum_coef": 0.9},
    make=partial(timms, name="SGDW", module="sgdw", caution=True, foreach=False),
    numbers={"learning_rate": 0.01, "beta_1": 0.9, "wdecay": 0.3},
)  # fmt: skip
NESTEROV = replace(
    MOMENTUM, by=partial(cautious_momentum, nesterov=True),
    float32_ulp=float("inf"),  # where a change is all but 0 its sign is rounding, and the share goes by it
    around={"rule": "GradientDescentMomentum", "momentum_coef": 0.9, "nesterov": True},
    make=partial(timms, name="SGDW", module="sgdw", caution=True, nesterov=True, foreach=False),
)  # fmt: skip
LOOKAHEAD = replace(
    ADAMW, rule="Lookahead", package="pytorch_optimizer", make=lookahead_of_pytorch_optimizer, float32_ulp=6.0,
    by=partial(around_adamw, kind=Lookahead), numbers=ADAMW.numbers | {"k": 5, "alpha": 0.5},
)  # fmt: skip
CENTRALIZED = replace(
    ADAMW, rule="Centralized", package="pytorch_optimizer", make=centralized_adamw,
    by=partial(around_adamw, kind=Centralized),
)  # fmt: skip
RELATIVE = replace(
    ADAMW, rule="DecayedAdamW", package="torch-optimi", make=optimis, by=decayed,
    numbers=ADAMW.numbers | {"wdecay": 0.003, "decay_form": "relative", "first": 0.01}, rates=falling,
)  # fmt: skip
CORRECTED = replace(
    RELATIVE, package="timm", make=timms_corrected,
    numbers=ADAMW.numbers | {"wdecay": 0.3, "decay_form": "corrected", "first": 0.01},
)  # fmt: skip
CASES: list[Case] = [
    *rows(
        CAUTIOUS, AdamW={}, weight_decay={"wdecay": 0.3}, up_and_down={"rates": up_and_down, "wdecay": 0.3},
        betas_eps={"beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01}, two_groups={"groups": DECAYS},
        gradients_missing={"absent": True},
    ),
    *rows(LION, Lion={}, Lion_falling={"rates": falling}),
    *rows(MOMENTUM, momentum={}),
    *rows(NESTEROV, Nesterov={}),
    *rows(
        LOOKAHEAD, AdamW={}, k_alpha={"k": 3, "alpha": 0.8}, weight_decay={"wdecay": 0.3},
        up_and_down={"rates": up_and_down}, weights_of_0={"zeros": True},
    ),
    *rows(
        replace(LOOKAHEAD, package="timm", make=timms_lookahead), AdamW={}, k_alpha={"k": 3, "alpha": 0.8},
        k_of_6={"k": 6},
    ),
    *rows(CENTRALIZED, AdamW={}, weight_decay={"wdecay": 0.3}, gradients_missing={"absent": True}),
    *rows(RELATIVE, relative={}, relative_up_and_down={"rates": up_and_down}),
    *rows(CORRECTED, corrected={}, corrected_up_and_down={"rates": up_and_down}),
]  # fmt: skip
