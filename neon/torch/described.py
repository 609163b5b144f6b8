"""torch.optim's rules as descriptions, and the optimizer that is made of one and torch's arguments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor

from neon.arguments import beta, flag, non_negative, plain, unit_interval, within
from neon.attached.attached_optimizer import AttachedOptimizer
from neon.attached.printed import groups_text
from neon.engine.program.formats import PARAMETER
from neon.engine.program.numbers import check_values, other_word, several
from neon.engine.program.options import DESCRIBED, Check
from neon.engine.program.trace import Rule
from neon.engine.settings import Settings
from neon.messages import listed, received, shown
from neon.optimizers.adadelta import adadelta
from neon.optimizers.adafactor import adafactor, at_least_one, non_positive, optional_epsilon
from neon.optimizers.adagrad import adagrad_from, torch_adagrad
from neon.optimizers.adam import adam, adamw, amsgrad
from neon.optimizers.gradient_descent import gradient_descent, sgd
from neon.optimizers.lion import lion
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.rmsprop import rmsprop_centered, rmsprop_centered_momentum, rmsprop_momentum, torch_rmsprop
from neon.optimizers.signatures import CommonOptions, GradientClips, NamedOptions
from neon.statistics.asked import Statistics
from neon.stepping.group_names import has_names


def _finite(name: str, value: Any) -> float:
    return within(name, value, -math.inf, math.inf, "a finite number")


def _not_differentiable(name: str, value: Any) -> None:
    if value:
        raise ValueError(
            f"{name}={shown(value)} asks for steps that can be differentiated through; neon has none. Leave it out, or "
            "use the class of torch.optim; in a checkpoint, set it to False in its param_groups."
        )


class TorchRule(Optimizer):
    """A rule with every argument of torch.optim's class, read by the rule or not, as a group's values.

    `rule` is the one with the most states; `select_rule` gives the one that a group's values ask for. What torch's
    classes allow is allowed, infinities aside; a tensor of one element stands for its number.
    """

    _bounds: ClassVar[Mapping[str, Check]] = {
        "eps": non_negative,
        "alpha": non_negative,
        "rho": unit_interval,
        "momentum": non_negative,
        "dampening": _finite,
        "betas": several([beta, beta], [0.9, 0.999]),
        "lr_decay": non_negative,
        "initial_accumulator_value": non_negative,
        "nesterov": flag,
        "amsgrad": flag,
        "centered": flag,
        "decoupled_weight_decay": flag,
        "capturable": flag,
        "differentiable": _not_differentiable,
    }

    def __init__(self, *, state_dtype: Any = PARAMETER, **arguments: Any) -> None:
        super().__init__(state_dtype=state_dtype, **arguments)

    def _checked(self, given: dict[str, Any]) -> dict[str, Any]:
        check_values(given, self._declared.checks)
        return given


class SGDRule(TorchRule):
    """SGD; without momentum there is no buffer."""

    rule = staticmethod(sgd)

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        return sgd if values["momentum"] != 0 else gradient_descent


class AdamRule(TorchRule):
    """Adam or AdamW, or AMSGrad with either's weight decay."""

    rule = staticmethod(amsgrad)

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        if values["amsgrad"]:
            return amsgrad
        return adamw if values["decoupled_weight_decay"] else adam


class RMSpropRule(TorchRule):
    """RMSprop with the states that it needs."""

    rule = staticmethod(rmsprop_centered_momentum)

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        if values["centered"]:
            return rmsprop_centered_momentum if values["momentum"] > 0 else rmsprop_centered
        return rmsprop_momentum if values["momentum"] > 0 else torch_rmsprop

    def settings(self, values: Mapping[str, Any], *args: Any, **flags: Any) -> Settings:
        settings = super().settings(values, *args, **flags)
        if values["centered"] and settings.storage.states == PARAMETER:
            # √(v − m²) of v and m in 16 bits is NaN wherever gradients hardly vary.
            settings.storage = replace(settings.storage, states=(("momentum_buffer", PARAMETER),))
        return settings


class AdagradRule(TorchRule):
    """Adagrad, from the group's initial value of the sum."""

    rule = staticmethod(torch_adagrad)

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        start = float(values["initial_accumulator_value"])
        return adagrad_from(start) if start else torch_adagrad


class AdadeltaRule(TorchRule):
    """Adadelta, the same in torch and in `neon.optimizers`."""

    rule = staticmethod(adadelta)


class AdafactorRule(TorchRule):
    """Adafactor in the form of torch's class."""

    rule = staticmethod(adafactor)
    _bounds: ClassVar[Mapping[str, Check]] = {
        **TorchRule._bounds,
        "beta2_decay": non_positive,
        "eps": several([optional_epsilon, non_negative], [None, 1e-3]),
        "d": at_least_one,
    }


class LionRule(TorchRule):
    """Lion, which torch does not have."""

    rule = staticmethod(lion)


def two_betas(betas: Any) -> tuple[Any, Any]:
    """β₁ and β₂ as a group keeps them."""
    found = plain(betas)
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise TypeError(f"betas must be two numbers, such as (0.9, 0.999). {received('betas', betas)}")
    one, other = (beta.squeeze() if isinstance(beta, Tensor) else beta for beta in found)
    return one, other


# -- the optimizer ---------------------------------------------------------------------------------


class RuleOptions(CommonOptions, GradientClips, total=False):
    """What every rule takes besides torch's arguments; each is a parameter group's value too, but `seed`."""

    param_clip_value: float | None
    stochastic_round: bool | int


class Options(RuleOptions, total=False):
    """The keyword arguments that are neon's own: those of its rules, and those of `AttachedOptimizer`."""

    gradient_clip_previous_norm: float | None
    skip_nonfinite: bool
    partitioned: bool
    in_backward: bool
    norms_in_backward: bool
    share_matrices: bool
    statistics: bool | int | Statistics
    audit: bool


class GraphOptions(Options, total=False):
    """The same, of classes to which torch gives no `capturable`: their steps need none there."""

    capturable: bool


class DecoupledOptions(Options, total=False):
    """The same, of a class whose default values have one more than its arguments are."""

    decoupled_weight_decay: bool


class DropIn(AttachedOptimizer):
    """A class of torch.optim by its name, with neon's steps.

    Arguments, defaults, formulas, states and the values of groups are torch's: checkpoints load both ways.
    `foreach` and `fused` choose among torch's implementations and are taken without effect. Further
    keyword arguments are `Options`. States take the memory of torch's: of parameters of 16 bits they are bfloat16,
    rounded at random (of float16 too, in whose range a mean of squares would vanish). Float32 are those of fewer
    than 4096 elements, of weights with `master="split"`, and the averages of a centered RMSprop, whose difference
    would be NaN where gradients hardly vary. `state_dtype="float32"` asks for more.

    Raises what torch's class raises for the same arguments, `ValueError` for `differentiable=True`, NaN,
    infinities, and `capturable=True` on devices whose steps no graph can hold, and `TypeError` for flags that
    are not True or False.
    """

    rule: type[TorchRule]
    __signature__ = NamedOptions(TorchRule)

    def _take(self, given: dict[str, Any]) -> None:
        """What a constructor was given: its `locals()`, as its last statement."""
        name, options, params = type(self).__name__, {**given["options"]}, given["params"]
        arguments = {k: plain(value) for k, value in given.items() if k not in ("self", "params", "options")}
        if unknown := [option for option in options if option not in GraphOptions.__annotations__]:
            known = dict.fromkeys(["params", *arguments, *GraphOptions.__annotations__])
            first, word = shown(unknown[0], 60), other_word(unknown[0], known)
            raise TypeError(f"{name} has no argument {first}.{word} Its arguments: {listed(known, 300)}.")
        if arguments.get("fused"):
            for chosen in ("differentiable", "foreach"):
                if arguments[chosen]:
                    raise RuntimeError(f"{name}: fused and {chosen} cannot both be True. Leave one of them out.")
        if arguments.get("capturable"):
            options["capturable"] = True
        own = {option: options.pop(option) for option in DESCRIBED if option in options}
        super().__init__(self.rule(**arguments, **own, name=name), params, **options)

    def __repr__(self) -> str:
        """Groups as torch prints them; where parameters have names, the table of layers below."""
        named = any(map(has_names, self.param_groups))
        return groups_text(self) + (f"\n{self.table()}" if named else "")
