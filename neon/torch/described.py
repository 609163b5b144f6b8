"""torch.optim's rules as descriptions: which rule the values of a group ask for, and which values are allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from neon.engine.settings import Settings
from neon.engine.trace import Rule
from neon.optimizers.adadelta import adadelta
from neon.optimizers.adam import adam, adamw
from neon.optimizers.gradient_descent import gradient_descent
from neon.optimizers.lion import lion
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.values import check_torch_values, check_values
from neon.torch import rules


class TorchRule(Optimizer):
    """A rule with every argument of torch.optim's class, read by the rule or not, as a group's values.

    `rule` is the one with the most states; `select_rule` gives the one that a group's values ask for.
    """

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
