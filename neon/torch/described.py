"""torch.optim's rules as descriptions, and the optimizer that is made of one and torch's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypedDict

from torch import Tensor
from torch.optim.optimizer import ParamsT

from neon.arguments import PARAMETER, plain
from neon.attached.attached_optimizer import AttachedOptimizer
from neon.attached.printed import groups_text
from neon.engine.program.trace import Rule
from neon.engine.settings import Settings
from neon.messages import listed, received, shown
from neon.optimizers.adadelta import adadelta
from neon.optimizers.adam import adam, adamw
from neon.optimizers.gradient_descent import gradient_descent
from neon.optimizers.lion import lion
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.options import NamedOptions
from neon.optimizers.values import check_torch_values, check_values, other_word
from neon.stepping.group_names import has_names
from neon.torch import rules


class TorchRule(Optimizer):
    """A rule with every argument of torch.optim's class, read by the rule or not, as a group's values.

    `rule` is the one with the most states; `select_rule` gives the one that a group's values ask for.
    """

    def __init__(self, *, state_dtype: Any = PARAMETER, **arguments: Any) -> None:
        super().__init__(state_dtype=state_dtype, **arguments)

    def _checked(self, given: dict[str, Any]) -> dict[str, Any]:
        check_values(given, custom=True)
        check_torch_values(given)
        return given

    def settings(self, values: Mapping[str, Any], *args: Any, **flags: Any) -> Settings:
        check_torch_values(values)
        return super().settings(values, *args, **flags)


class SGDRule(TorchRule):
    """SGD; without momentum there is no buffer."""

    rule = staticmethod(rules.sgd)

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        return rules.sgd if values["momentum"] != 0 else gradient_descent


class AdamRule(TorchRule):
    """Adam or AdamW, or AMSGrad with either's weight decay."""

    rule = staticmethod(rules.amsgrad)

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        if values["amsgrad"]:
            return rules.amsgrad
        return adamw if values["decoupled_weight_decay"] else adam


class RMSpropRule(TorchRule):
    """RMSprop with the states that it needs."""

    rule = staticmethod(rules.rmsprop_centered_momentum)

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        if values["centered"]:
            return rules.rmsprop_centered_momentum if values["momentum"] > 0 else rules.rmsprop_centered
        return rules.rmsprop_momentum if values["momentum"] > 0 else rules.rmsprop

    def settings(self, values: Mapping[str, Any], *args: Any, **flags: Any) -> Settings:
        settings = super().settings(values, *args, **flags)
        if values["centered"] and settings.storage.states == PARAMETER:
            # √(v − m²) of v and m in 16 bits is NaN wherever gradients hardly vary.
            settings.storage = replace(settings.storage, states=(("momentum_buffer", PARAMETER),))
        return settings


class AdagradRule(TorchRule):
    """Adagrad, from the group's initial value of the sum."""

    rule = staticmethod(rules.adagrad)

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        start = float(values["initial_accumulator_value"])
        return rules.adagrad_from(start) if start else rules.adagrad


class AdadeltaRule(TorchRule):
    """Adadelta, the same in torch and in `neon.optimizers`."""

    rule = staticmethod(adadelta)


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


class RuleOptions(TypedDict, total=False):
    """What every rule takes besides torch's arguments; each is a parameter group's value too, but `seed`."""

    gradient_clip_value: float | None
    gradient_clip_norm: float | None
    param_clip_value: float | None
    stochastic_round: bool | int
    state_dtype: Any
    master: str | None
    weight_average: float | None
    lr_scale: float
    seed: int


class Options(RuleOptions, total=False):
    """The keyword arguments that are neon's own: those of its rules, and those of `AttachedOptimizer`."""

    gradient_clip_previous_norm: float | None
    skip_nonfinite: bool
    partitioned: bool
    in_backward: bool


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

    def __init__(self, params: ParamsT, arguments: dict[str, Any], options: Options) -> None:
        name = type(self).__name__
        arguments = {argument: plain(value) for argument, value in arguments.items()}
        given: dict[str, Any] = dict(options)
        if unknown := [option for option in given if option not in GraphOptions.__annotations__]:
            known = dict.fromkeys(["params", *arguments, *GraphOptions.__annotations__])
            first, word = shown(unknown[0], 60), other_word(unknown[0], known)
            raise TypeError(f"{name} has no argument {first}.{word} Its arguments: {listed(known, 300)}.")
        if arguments.get("fused"):
            for flag in ("differentiable", "foreach"):
                if arguments[flag]:
                    raise RuntimeError(f"{name}: fused and {flag} cannot both be True. Leave one of them out.")
        if arguments.get("capturable"):
            given["capturable"] = True
        own = {option: given.pop(option) for option in RuleOptions.__annotations__ if option in given}
        super().__init__(self.rule(**arguments, **own, name=name), params, **given)

    def __repr__(self) -> str:
        """Groups as torch prints them; where parameters have names, the table of layers below."""
        named = any(map(has_names, self.param_groups))
        return groups_text(self) + (f"\n{self.table()}" if named else "")
