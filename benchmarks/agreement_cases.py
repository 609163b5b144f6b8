"""The rows of agreement.py: a rule with numbers in neon's words, and the package's class that has the same rule.

A file agreement_of_NAME.py adds the `CASES` of a rule, its `STATES` and its `WORDS`.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import neon.optimizers

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import reference
from reference import Array

Numbers = dict[str, Any]
SHAPES: tuple[tuple[int, ...], ...] = ((1,), (7,), (3, 5), (2, 3, 4, 5), (33, 17), ())


@dataclass(frozen=True, kw_only=True)
class Case:
    """Numbers under neon's words, for all groups and for each; the rate's factor at a step; and the other side."""

    name: str
    rule: str
    package: str
    make: Callable[[list[Any], Numbers], Any]  # of groups, and numbers in the package's words
    numbers: Numbers
    groups: tuple[Numbers, ...] = ()
    rates: Callable[[int], float] | None = None
    frozen: int | None = None  # a group that has rate 0 from half of the steps on
    zeros: bool = False  # weights that begin at 0
    scalars: bool = True  # a tensor of no dimensions is among them
    differs: str = ""  # in what neon is another on purpose: the reference alone is compared
    absent: bool = False  # every second tensor has no gradient at every third step
    around: Numbers | None = None  # a transform around another rule than AdamW: "rule" and its numbers
    by: Callable[[Numbers], Any] | None = None  # neon's optimizer, where it is not its class of the rule's name
    float32_ulp: float = 8.0
    shapes: tuple[tuple[int, ...], ...] = SHAPES

    def neons(self) -> Any:
        """neon's optimizer, or None where it has no such rule or another."""
        if self.differs:
            return None
        if self.by is not None:
            return self.by(self.numbers)
        made, rule = getattr(neon.optimizers, self.rule, None), (self.around or {"rule": "AdamW"})["rule"]
        if made is None or not hasattr(neon.optimizers, rule):
            return None
        if self.rule != "ScheduleFree":
            return made(**self.numbers)
        inner = {"learning_rate", "beta_1", "beta_2", "epsilon", "wdecay"}
        numbers = {word: number for word, number in self.numbers.items() if word in inner}
        outer = {word: number for word, number in self.numbers.items() if word not in inner}
        if rule == "AdamW":
            return made(neon.optimizers.AdamW(**{"wdecay": 0.0, **numbers}), **outer)
        own = {word: number for word, number in (self.around or {}).items() if word not in ("rule", "momentum_coef")}
        if own or self.around != {"rule": rule, "momentum_coef": 0.0}:
            return None  # neon's momentum is the one that interpolates, its decay is at y
        return made(neon.optimizers.GradientDescentMomentum(momentum_coef=numbers.pop("beta_1"), **numbers), **outer)

    def references_base(self) -> Numbers:
        """The reference of the rule inside, as an argument of ScheduleFree's."""
        if self.around is None:
            return {}
        own = {word: number for word, number in self.around.items() if word != "rule"}
        made = TorchRMSprop if self.around["rule"] == "torch's RMSprop" else reference.REFERENCES[self.around["rule"]]
        return {"base": made(**own)}


class TorchRMSprop(reference.RMSProp):
    """v ← λv + (1−λ)g², θ ← θ − αg / (√v + ε): neon's RMSProp has an ε more, within the root."""

    def update(self, w: Array, g: Array, s: list[Array], t: int, epoch: int) -> Array:
        s[0] = self.decay_rate * s[0] + (1 - self.decay_rate) * g**2
        return w - self.learning_rate * g / (np.sqrt(s[0]) + self.epsilon)


# By rule: the states of tensors, in the references' order, and the numbers that tensors share.
STATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "AdamW": (("exp_avg", "exp_avg_sq"), ()),
    "Adafactor": (("row_var", "col_var", "variance"), ()),
    "LAMB": (("exp_avg", "exp_avg_sq"), ()),
    "Adam": (("exp_avg", "exp_avg_sq"), ()),
    "Prodigy": (("exp_avg", "exp_avg_sq", "s", "p0"), ("d", "d_max", "d_numerator", "k")),
    "ScheduleFree": (("z", "exp_avg_sq"), ("k", "lr_max", "weight_sum")),
}


def in_torch_words(numbers: Numbers) -> Numbers:
    """neon's words as most packages have them."""
    words = {"learning_rate": "lr", "wdecay": "weight_decay", "epsilon": "eps", "beta_3": "beta3"}
    words["gradient_clip_norm"] = "max_grad_norm"
    found = {words.get(word, word): number for word, number in numbers.items() if word not in ("beta_1", "beta_2")}
    if "beta_2" in numbers:
        found["betas"] = (numbers["beta_1"], numbers["beta_2"])
    elif "beta_1" in numbers:
        found["momentum"] = numbers["beta_1"]  # the wrapper's
    return found


def words_of_lamb(numbers: Numbers) -> Numbers:
    """Where nothing is said, timm clips by 1.0; and without decay it does not adapt: that is Adam."""
    return {"max_grad_norm": None, "always_adapt": True} | in_torch_words(numbers)


def words_of_plain_lamb(numbers: Numbers) -> Numbers:
    return words_of_lamb(numbers) | {"always_adapt": False}


def words_of_adafactor(numbers: Numbers) -> Numbers:
    plain = {word: number for word, number in numbers.items() if not word.startswith("epsilon")}
    return in_torch_words(plain) | {"eps": (numbers.get("epsilon_1"), numbers.get("epsilon_2", 1e-3))}


WORDS: dict[str, Callable[[Numbers], Numbers]] = {
    "AdamW": in_torch_words,
    "Adafactor": words_of_adafactor,
    "LAMB": words_of_lamb,
    "Adam": words_of_plain_lamb,
    "Prodigy": in_torch_words,
    "ScheduleFree": in_torch_words,
}


def of_timm(name: str, module: str) -> Any:
    """A class from a file of timm.optim, without what `import timm` asks for: models, torchvision and more."""
    for package in ("timm", "timm.optim"):
        if package not in sys.modules:
            spec = importlib.util.find_spec(package)
            if spec is None:
                raise ModuleNotFoundError(f"{package} is not installed. benchmarks/agreement.sh installs it.")
            sys.modules[package] = bare = types.ModuleType(package)
            bare.__path__ = list(spec.submodule_search_locations or [])
    return getattr(importlib.import_module(f"timm.optim.{module}"), name)


def adafactor(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    return torch.optim.Adafactor(groups, **numbers, foreach=foreach)


def lamb(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    return of_timm("Lamb", "lamb")(groups, **numbers, foreach=foreach)


def prodigy(groups: list[Any], numbers: Numbers) -> Any:
    from prodigyopt import Prodigy  # type: ignore[import-not-found]

    return Prodigy(groups, **numbers)


def schedule_free_adamw(groups: list[Any], numbers: Numbers, *, foreach: bool = False) -> Any:
    from schedulefree import AdamWScheduleFree  # type: ignore[import-not-found]

    return AdamWScheduleFree(groups, **numbers, foreach=foreach)


def schedule_free_around(
    groups: list[Any], numbers: Numbers, *, base: Callable[..., torch.optim.Optimizer], filled: tuple[str, ...] = ()
) -> Any:
    """The wrapper. torch's rules make states where there are none, and z is there first: they are filled by hand."""
    from schedulefree import ScheduleFreeWrapper  # type: ignore[import-not-found]

    optimizer = base(groups, lr=numbers["lr"])
    for group in optimizer.param_groups:
        for p in group["params"] if filled else ():
            optimizer.state[p] |= {"step": torch.tensor(0.0)} | {name: torch.zeros_like(p) for name in filled}
    named = {"r": numbers.get("r", 0.0), "weight_lr_power": numbers.get("weight_lr_power", 2.0)}
    return ScheduleFreeWrapper(
        optimizer, momentum=numbers["momentum"], weight_decay_at_y=numbers.get("weight_decay", 0.0), **named
    )


def torchs_adamw(groups: list[Any], numbers: Numbers) -> Any:
    return torch.optim.AdamW(groups, **numbers, foreach=False)


def up_and_down(step: int) -> float:
    """A rate of 0 first, then one that rises and falls, to 0 again at the end."""
    return min(step, 19 - step) / 9.5


def falling(step: int) -> float:
    return 1 - step / 20


def rows(shared: Case, **each: Numbers) -> list[Case]:
    """The same case under names, with numbers and fields changed; an underscore stands for a space."""
    found = []
    for name, change in each.items():
        fields = {word: change.pop(word) for word in tuple(change) if word in Case.__dataclass_fields__}
        found.append(replace(shared, name=name.replace("_", " "), numbers=shared.numbers | change, **fields))
    return found


ADAMW = Case(
    name="", rule="AdamW", package="torch", make=torchs_adamw, float32_ulp=6.0,
    numbers={"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "wdecay": 0.01},
)  # fmt: skip
ADAFACTOR = replace(ADAMW, rule="Adafactor", make=adafactor, numbers={"learning_rate": 0.01})
LAMB = replace(
    ADAMW, rule="LAMB", package="timm", make=lamb,
    numbers={"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-6, "wdecay": 0.01},
)  # fmt: skip
PRODIGY = replace(
    ADAMW, rule="Prodigy", package="prodigyopt", make=prodigy, float32_ulp=40.0,
    numbers={"learning_rate": 1.0, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "d0": 1e-2},
)  # fmt: skip
FREE = replace(
    ADAMW, rule="ScheduleFree", package="schedulefree", make=schedule_free_adamw,
    numbers={"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8},
)  # fmt: skip
AROUND_SGD = replace(
    FREE, make=partial(schedule_free_around, base=torch.optim.SGD), numbers={"learning_rate": 0.01, "beta_1": 0.9},
    around={"rule": "GradientDescentMomentum", "momentum_coef": 0.0}, scalars=False,  # the wrapper takes none
)  # fmt: skip
RMSPROP = partial(torch.optim.RMSprop, alpha=0.9, foreach=False)
AROUND_RMSPROP = replace(
    AROUND_SGD, make=partial(schedule_free_around, base=RMSPROP, filled=("square_avg",)),
    around={"rule": "torch's RMSprop", "decay_rate": 0.9, "epsilon": 1e-8},
)  # fmt: skip
DECAYS = ({"wdecay": 0.0}, {"wdecay": 0.3})

CASES = [
    *rows(ADAMW, defaults={}, weight_decay={"wdecay": 0.3}, up_and_down={"rates": up_and_down}),
    *rows(
        ADAFACTOR, defaults={}, foreach={"make": partial(adafactor, foreach=True)},
        weight_decay={"wdecay": 0.3}, lr_1={"learning_rate": 1.0}, beta2_decay={"beta2_decay": -0.5},
        eps={"epsilon_1": 0.25, "epsilon_2": 0.5}, d={"d": 1.5}, weights_of_0={"zeros": True},
        up_and_down={"rates": up_and_down, "wdecay": 0.3}, gradients_missing={"absent": True},
        two_groups={"groups": DECAYS},
    ),
    *rows(
        LAMB, defaults={}, foreach={"make": partial(lamb, foreach=True)},
        clip_by_1={"gradient_clip_norm": 1.0}, weight_decay={"wdecay": 0.3}, no_decay={"wdecay": 0.0},
        trust_clip={"trust_clip": True},
        betas_eps={"beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01}, weights_of_0={"zeros": True},
        up_and_down={"rates": up_and_down}, two_groups={"groups": DECAYS},
    ),
    *rows(LAMB, Lamb_without_decay={"rule": "Adam", "wdecay": 0.0}),
    *rows(
        PRODIGY, defaults={"d0": 1e-6, "float32_ulp": float("inf")},  # d rests on a few ulp of the weights
        d0={}, weight_decay={"wdecay": 0.3},
        coupled_decay={"wdecay": 0.3, "decouple": False}, bias_correction={"use_bias_correction": True},
        safeguard_warmup={"safeguard_warmup": True, "rates": up_and_down},
        d_coef={"d_coef": 2.0}, growth_rate={"growth_rate": 1.1}, beta3={"beta_3": 0.7},
        betas_eps={"beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01},
        no_beta1={"beta_1": 0.0, "differs": "the gradient has the old d"},
        up_and_down={"rates": up_and_down, "use_bias_correction": True}, falling={"rates": falling},
        two_groups={"groups": DECAYS},
        one_group_stops={"groups": DECAYS, "frozen": 1, "differs": "it stands still"},
        weights_of_0={"zeros": True}, gradients_missing={"absent": True},
    ),
    *rows(
        FREE, defaults={}, foreach={"make": partial(schedule_free_adamw, foreach=True)}, weight_decay={"wdecay": 0.3},
        warmup={"warmup_steps": 7}, r={"r": 1.5}, weight_lr_power={"weight_lr_power": 0.5, "warmup_steps": 7},
        power_0={"weight_lr_power": 0.0, "rates": up_and_down},
        betas_eps={"beta_1": 0.6, "beta_2": 0.9, "epsilon": 0.01},
        up_and_down={"rates": up_and_down, "wdecay": 0.3}, falling={"rates": falling}, weights_of_0={"zeros": True},
        two_groups={"groups": ({"learning_rate": 0.01}, {"learning_rate": 0.05, "wdecay": 0.3})},
        gradients_missing={"absent": True, "wdecay": 0.3},
    ),
    *rows(
        AROUND_SGD, around_SGD={}, around_SGD_decay_at_y={"wdecay": 0.3},
        around_SGD_falling={"rates": falling, "r": 1.0},
        around_SGD_decay_at_z={
            "make": partial(schedule_free_around, base=partial(torch.optim.SGD, weight_decay=0.3)),
            "around": {"rule": "GradientDescentMomentum", "momentum_coef": 0.0, "wdecay": 0.3},
        },
        around_SGD_momentum={
            "make": partial(schedule_free_around, base=partial(torch.optim.SGD, momentum=0.8)),
            "around": {"rule": "GradientDescentMomentum", "momentum_coef": 0.8},
        },
    ),
    *rows(AROUND_RMSPROP, around_RMSprop={}, around_RMSprop_decay_at_y={"wdecay": 0.3}),
]  # fmt: skip


def all_cases() -> list[Case]:
    """Those here, and those of files of their own, whose states and words come along."""
    cases = [*CASES]
    for file in sorted(Path(__file__).parent.glob("agreement_of_*.py")):
        module = importlib.import_module(file.stem)
        cases += module.CASES
        STATES.update(module.STATES)
        WORDS.update(module.WORDS)
    return cases
