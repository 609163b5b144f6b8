"""Values of a parameter group: each under torch's name, each with what is allowed for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor

from neon.arguments import (
    average_decay,
    beta,
    clip_bound,
    flag,
    master_format,
    non_negative,
    plain,
    positive,
    rounding,
    state_format,
    unit_interval,
    within,
)
from neon.engine.program.options import SCALE
from neon.messages import received

# What every rule takes, and the engine relies on.
_OPTIONS: dict[str, Callable[[str, Any], Any]] = {
    "lr": non_negative,
    "weight_decay": non_negative,
    "gradient_clip_norm": lambda name, value: clip_bound(name, value, norm=True),
    "gradient_clip_previous_norm": lambda name, value: clip_bound(name, value, norm=True),
    "gradient_clip_value": clip_bound,
    "param_clip_value": clip_bound,
    "outer_clip_norms": lambda name, value: [positive(f"{name}[{i}]", bound) for i, bound in enumerate(value)],
    "stochastic_round": rounding,
    "maximize": flag,
    "state_dtype": state_format,
    "master": master_format,
    "weight_average": average_decay,
    SCALE: lambda _, value: non_negative("lr_scale", value),
    "epoch": non_negative,
}
# What the library's own rules mean by these names; a custom rule may mean something else.
_HYPERPARAMETERS: dict[str, Callable[[str, Any], Any]] = {
    "eps": positive,
    "alpha": unit_interval,
    "rho": unit_interval,
    "momentum": unit_interval,
    "betas": lambda name, value: _betas(name, value),
    "nesterov": flag,
}
_OF_LIBRARY = _OPTIONS | _HYPERPARAMETERS
_NEVER_NAN = {type(None), bool, str}
# From here on a whole number has no float.
_TOO_LARGE = 2**1024 - 2**970
# What torch.optim's classes allow for theirs, infinities aside; a tensor of one element stands for its number.
_TORCHS: dict[str, Callable[[str, Any], Any]] = {
    "eps": non_negative,
    "alpha": non_negative,
    "rho": unit_interval,
    "momentum": non_negative,
    "dampening": lambda name, value: within(name, value, -math.inf, math.inf, "a finite number"),
    "betas": lambda name, value: _betas(name, value),
    "lr_decay": non_negative,
    "initial_accumulator_value": non_negative,
    "nesterov": flag,
    "amsgrad": flag,
    "centered": flag,
    "decoupled_weight_decay": flag,
    "capturable": flag,
    "differentiable": lambda name, value: _not_differentiable(name, value),
}
# Constructors keep neon's documented words; groups, and torch's classes, have torch's.
_CONSTRUCTOR_WORDS = {
    "learning_rate": "lr",
    "momentum_coef": "momentum",
    "beta_1": "betas",
    "beta_2": "betas",
    "epsilon": "eps",
    "wdecay": "weight_decay",
    "decay_rate": "alpha",
    "decay": "rho",
}


def check_values(values: Mapping[str, Any], *, custom: bool) -> None:
    """Refuse, by name, values that a rule cannot run with; `custom` rules give their own names a meaning."""
    checks = _OPTIONS if custom else _OF_LIBRARY
    for name, value in values.items():
        if name in checks:
            _check(name, value, checks[name])
        elif type(value) not in _NEVER_NAN and name not in ("params", "param_names"):
            _check(name, value, no_nan)


def check_torch_values(values: Mapping[str, Any]) -> None:
    """Refuse, by name, hyper-parameters that torch.optim's classes refuse or that cannot be served."""
    for name, check in _TORCHS.items():
        if name in values:
            _check(name, values[name], check)


def _check(name: str, value: Any, check: Callable[[str, Any], Any]) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be a number or a tensor of one element. {received(name, value)}")
        if value.device.type != "cpu":
            return  # reading it would wait for the device
        value = value.item()
    check(name, value)


def check_names(group: Mapping[str, Any]) -> None:
    """Refuse a constructor's word where a group has torch's name for it."""
    for name in group:
        if name in _CONSTRUCTOR_WORDS and _CONSTRUCTOR_WORDS[name] not in group:
            raise ValueError(
                f"A parameter group has no {name!r}: it uses torch's names. Write {_CONSTRUCTOR_WORDS[name]!r}."
            )


def other_word(name: str, known: Collection[str]) -> str:
    """A sentence on an argument that is not known: what it is called here if it has another name elsewhere."""
    words = [neon for neon, torchs in _CONSTRUCTOR_WORDS.items() if torchs == name]
    words += [_CONSTRUCTOR_WORDS[name]] if name in _CONSTRUCTOR_WORDS else []
    here = [word for word in words if word in known]
    return f" Here it is called {' and '.join(here)}." if here else ""


def no_nan(name: str, value: Any) -> None:
    """Refuse NaN, and whole numbers that are too large for a float, in tuples too."""
    found = plain(value)
    for item in found if isinstance(found, (tuple, list)) else (found,):
        if isinstance(item, float) and math.isnan(item):
            raise ValueError(f"{name} must not be NaN. {received(name, value)}")
        if isinstance(item, int) and abs(item) >= _TOO_LARGE:
            raise ValueError(f"{name} must be a number that a float can hold. {received(name, value)}")


def _betas(name: str, value: Any) -> None:
    value = value if isinstance(value, (tuple, list)) else plain(value)
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name} must be two numbers, such as (0.9, 0.999). {received(name, value)}")
    for place, item in enumerate(value):
        _check(f"{name}[{place}]", item, beta)


def _not_differentiable(name: str, value: Any) -> None:
    if value:
        raise ValueError(
            f"{name}={value!r} asks for steps that can be differentiated through; neon has none. Leave it out, or use "
            "the class of torch.optim; in a checkpoint, set it to False in its param_groups."
        )
