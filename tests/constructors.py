"""Every exported optimizer and how it is made: what is exported is in all tables with no line added.

A class whose constructor needs arguments has them in `REQUIRED`; every other one is made with none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from torch import nn

import neon.optimizers
import neon.torch
from neon.optimizers import (
    Adam,
    AdamW,
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
    Transform,
    WarmupStableDecay,
)

Module = TypeVar("Module", bound=nn.Module)
REQUIRED: dict[str, dict[str, Any]] = {
    "Muon": {"units": "float32"},  # it would be another on another processor
    "GradientDescentMomentum": {"learning_rate": 0.1, "momentum_coef": 0.9},
    "MultiOptimizer": {
        "optimizer_mapping": {
            "default": MultiOptimizer({"default": Adam(), "b": GradientDescentMomentum(0.1, 0.9)}),
            "c": Adam(schedule=WarmupStableDecay(2, 1, 3, unit="steps"), gradient_clip_norm=0.5),
        },
        "gradient_clip_norm": 3.0,
    },
    # Its weights of 16 bits need the others beside them, and are rounded at random nowhere.
    "ScheduleFree": {"inner": AdamW(), "master": "split"},
    **{name: {"inner": AdamW()} for name in ("Cautious", "Centralized", "Lookahead")},
}


def exported(package: Any, base: type) -> dict[str, Any]:
    """The classes that derive from it, by their own names: RMSProp is exported in two spellings."""
    found = [getattr(package, name) for name in sorted(package.__all__)]
    return {
        cls.__name__: cls
        for cls in found
        if isinstance(cls, type) and issubclass(cls, base) and cls not in (base, Transform)
    }


OPTIMIZERS: dict[str, type[Optimizer]] = exported(neon.optimizers, Optimizer)
RULES = {name: cls for name, cls in OPTIMIZERS.items() if cls is not MultiOptimizer}
DROP_INS: dict[str, Any] = exported(neon.torch, neon.torch.AttachedOptimizer)


def described(name: str, /, **options: Any) -> Optimizer:
    """The optimizer of that name with what it requires; options go before."""
    required = REQUIRED.get(name, {})
    if "master" in required and options.get("stochastic_round") in (True, 10):
        del options["stochastic_round"]
    return OPTIMIZERS[name](**{**required, **options})


def _of_matrices(name: str) -> bool:
    optimizer = described(name)
    return all(program.calls for program in optimizer.settings(optimizer.group()).programs)


# Rules that take matrices alone.
OF_MATRICES = {name for name in RULES if _of_matrices(name)}


def without_vectors(name: str, model: Module) -> Module:
    """A module as a rule takes it: without its vectors where that takes matrices alone."""
    for module in model.modules() if name in OF_MATRICES else ():
        for key, param in [*module.named_parameters(recurse=False)]:
            if param.dim() < 2:
                module.register_parameter(key, None)
    return model


def shaped(name: str, *shape: int) -> tuple[int, ...]:
    """The shape of a tensor as a rule takes it: a vector as a row where it takes matrices alone."""
    return (1, *shape)[len(shape) > 1 or name not in OF_MATRICES :]


def describing(**required: dict[str, Any]) -> Callable[..., Optimizer]:
    """As `described`, but these optimizers are made with what is given here."""

    def description(name: str, /, **options: Any) -> Optimizer:
        return OPTIMIZERS[name](**{**(REQUIRED | required).get(name, {}), **options})

    return description


def number_rows(rules: Iterable[type[Optimizer]]) -> list[str]:
    """The rows of the guide's table: the numbers of these rules, as they are declared."""
    rows = []
    for rule in sorted(dict.fromkeys(rules), key=lambda rule: rule.__name__.lower()):
        for argument, number in rule._declared.numbers.items():
            default = "" if number.default is None else f"`{number.default}`"
            rows.append(f"| {rule.__name__} | `{argument}` | {default} | {number.meaning} | `{number.word}` |")
    return rows
