"""Bad input to constructors and mappings: every refusal names the argument and the value."""

# pyright: reportArgumentType=false
# the tables pass wrong types on purpose

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from constructors import DROP_INS, RULES, described
from torch import nn

import neon.optimizers
import neon.torch
from neon.arguments import beta, between, flag, non_negative, positive, positive_integer, unit_interval, whole_number
from neon.backends import Backend, gen_backend
from neon.callbacks import Callbacks
from neon.optimizers import (
    Adam,
    GradientDescentMomentum,
    MultiOptimizer,
    Optimizer,
    Schedule,
    StepSchedule,
    get_param_list,
)
from neon.optimizers.adafactor import at_least_one, non_positive, optional_epsilon
from neon.optimizers.adopt import optional_exponent
from neon.optimizers.asgd import finite
from neon.optimizers.muon import coefficients, processor_units, scale_name, step_count
from neon.optimizers.rprop import grows, shrinks
from neon.optimizers.shampoo import graft_name, place_of_epsilon

NAN, INF = math.nan, math.inf


# -- constructors ----------------------------------------------------------------------------------

# argument: {type of error: values that are refused}
NUMBER = {TypeError: ["0.1", None, True, [0.1], torch.tensor([0.1, 0.2]), 1j]}
NOT_NEGATIVE = {ValueError: [-0.1, NAN, INF, -INF], **NUMBER}
POSITIVE = {ValueError: [0, 0.0, -1e-8, NAN, INF], **NUMBER}
BETA = {ValueError: [-0.1, 1, 1.0, 1.5, NAN, INF], **NUMBER}
UNIT = {ValueError: [-0.1, 1.0001, NAN, INF], **NUMBER}
CLIP = {ValueError: [0, 0.0, NAN], TypeError: ["1", True, [1.0], 1j]}
ARGUMENTS: dict[str, dict[type[Exception], list[Any]]] = {
    "learning_rate": NOT_NEGATIVE,
    "momentum_coef": UNIT,
    "decay_rate": UNIT,
    "decay": UNIT,
    **{f"beta_{number}": BETA for number in (1, 2, 3)},
    "wdecay": NOT_NEGATIVE,
    "parts": {ValueError: [0, -1, (), (0, 1)], TypeError: ["3", 1.5]},
    "decay_form": {ValueError: ["L2", "", True, 0.1, ["coupled"]]},
    "gradient_clip_norm": CLIP,
    "gradient_clip_value": CLIP,
    "param_clip_value": CLIP,
    "stochastic_round": {ValueError: [0, -1, 24], TypeError: [0.001, "yes", None, [1]]},
    "growth_rate": {ValueError: [0.5, 0, -1, NAN], TypeError: ["2", None, True, [2.0]]},
    "inner": {TypeError: [None, 3, "AdamW", Adam]},
    "nesterov": {TypeError: [1, 0, "yes", None]},
    "schedule": {TypeError: [0.1, "cosine", Schedule, [1, 2], lambda epoch: 0.1]},
    "name": {TypeError: [3, 0.1, ["adam"], True]},
    "seed": {TypeError: ["one", 1.5, None]},
    "maximize": {TypeError: [1, 0, "yes", None]},
    "state_dtype": {ValueError: ["half", 16, True]},
    "master": {ValueError: ["float32", True, 32]},
    "mars_type": {ValueError: ["shampoo", "", 1, None, True]},
    "lr_scale": {ValueError: [-0.1, NAN, INF], TypeError: ["0.9", True, [0.9]]},
    "weight_average": {ValueError: [-0.1, 1, NAN], TypeError: ["0.9", True, [0.9]]},
}
# By its check, a number of an argument that is not in the table.
OF_CHECK: dict[Any, dict[type[Exception], list[Any]]] = {
    non_negative: NOT_NEGATIVE, positive: POSITIVE, beta: BETA, unit_interval: UNIT,
    flag: {TypeError: [1, 0, "yes", None]},
    between: {ValueError: [0, 0.0, 1, 1.5, -0.1, NAN, INF], **NUMBER},
    non_positive: {ValueError: [0.1, NAN, INF, -INF], **NUMBER},
    at_least_one: {ValueError: [0.9, NAN, INF], **NUMBER},
    optional_epsilon: {ValueError: [-0.1, NAN, INF], TypeError: ["0.1", True, [0.1]]},
    optional_exponent: {ValueError: [-0.1, NAN, INF], TypeError: ["0.1", True, [0.1]]},
    positive_integer: {ValueError: [0, -1], TypeError: ["1", None, True, 1.5, [1]]},
    whole_number: {ValueError: [-1], TypeError: ["1", None, True, 1.5, [1]]},
    finite: {ValueError: [NAN, INF, -INF], **NUMBER},
    shrinks: {ValueError: [-0.1, 0, 0.0, 1, 1.5, NAN, INF], **NUMBER},
    grows: {ValueError: [-0.1, 0, 1, 1.0, NAN, INF], **NUMBER},
    graft_name: {ValueError: ["", "adam", 1, None]},
    place_of_epsilon: {ValueError: ["", "root", 1, None]},
    scale_name: {ValueError: ["", "spectral norm", 1, True]},
    processor_units: {ValueError: ["avx", "", 1.0, True, ["amx"]]},
    coefficients: {ValueError: ["", "quartic", (1.0, 2.0), (), 3.0, None]},
    step_count: {ValueError: [-1, 100], TypeError: ["1", None, True, 1.5, [1]]},
    RULES["Prodigy"]._declared.numbers["beta_3"].check: BETA,
    RULES["Prodigy"]._declared.numbers["growth_rate"].check: {ValueError: [0, 0.5, -1, NAN], **NUMBER},
}  # fmt: skip
OPTIONS = [name for name in inspect.signature(Optimizer.__init__).parameters if name not in ("self", "hyperparameters")]


def arguments(rule: str) -> list[str]:
    return list(inspect.signature(RULES[rule]).parameters)


def refused(rule: str, argument: str) -> dict[type[Exception], list[Any]]:
    """The values that an argument of a rule does not take, by the type of error."""
    number = RULES[rule]._declared.numbers.get(argument)
    if number is not None and number.check is unit_interval:  # a β that may be 1
        return UNIT
    return ARGUMENTS.get(argument) or OF_CHECK[None if number is None else number.check]


@pytest.mark.parametrize("rule", RULES)
def test_a_wrong_argument_is_named_with_its_value(rule: str) -> None:
    """Every wrong value of every argument: some 130 for each rule."""
    cases = [
        (argument, error, value)
        for argument in arguments(rule)
        for error, values in refused(rule, argument).items()
        for value in values
    ]
    for argument, error, value in cases:
        with pytest.raises((ValueError, TypeError)) as caught:
            described(rule, **{argument: value})
        assert caught.type is error, f"{argument}={value!r}"
        assert re.search(rf"\b{argument}\b", str(caught.value))
        assert repr(value) in str(caught.value)


def test_the_table_covers_every_argument() -> None:
    for rule in RULES:
        assert {*OPTIONS} <= {*arguments(rule)}
        assert all(refused(rule, argument) for argument in arguments(rule))


TORCHS = ["lr", "betas", "eps", "momentum", "rho", "alpha", "weight_decay", "lerning_rate", "step"]


@pytest.mark.parametrize("rule", RULES)
def test_an_argument_that_does_not_exist_is_refused(rule: str) -> None:
    """Torch's names above all: they must not be swallowed."""
    for name in [name for name in TORCHS if name not in arguments(rule)]:
        with pytest.raises(TypeError, match=rf"{name}"):
            described(rule, **{name: 0.5})


# torch's name: what the constructors call it
WORDS = {
    "lr": ["learning_rate"],
    "momentum": ["momentum_coef"],
    "betas": ["beta_1", "beta_2", "beta_3"],
    "eps": ["epsilon", "epsilon_1", "epsilon_2"],
    "weight_decay": ["wdecay"],
    "alpha": ["decay_rate", "power"],
    "rho": ["decay"],
}


@pytest.mark.parametrize("rule", RULES)
def test_the_refusal_says_what_the_argument_is_called_here(rule: str) -> None:
    for name in [name for name in WORDS if name not in arguments(rule)]:
        here = [word for word in WORDS[name] if word in arguments(rule)]
        words = rf"\. Here it is called {' and '.join(here)}\. Its arguments: " if here else r"\. Its arguments: "
        with pytest.raises(TypeError, match=f"^{rule} has no argument '{name}'{words}") as caught:
            described(rule, **{name: 0.5})
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize("rule", DROP_INS)
def test_the_refusal_of_a_drop_in_says_what_the_argument_is_called_there(rule: str) -> None:
    for name, word in [(name, word) for name, here in WORDS.items() for word in here]:
        known = name in inspect.signature(DROP_INS[rule]).parameters
        words = rf"\. Here it is called {name}\. Its arguments: params, lr, " if known else r"\. Its arguments: "
        with pytest.raises(TypeError, match=f"^{rule} has no argument '{word}'{words}") as caught:
            DROP_INS[rule]([nn.Parameter(torch.ones(2))], **{word: 0.5})
        assert len(str(caught.value)) < 500


def test_a_rule_of_ones_own_keeps_its_own_names() -> None:
    assert Scaled(lr=0.5).group()["lr"] == 0.5
    with pytest.raises(TypeError, match=r"^Scaled has no argument 'learning_rate'\. Here it is called lr\."):
        Scaled(lr=0.5, learning_rate=0.1)


LARGE = {
    "tensor": torch.zeros(100, 100),
    "array": np.zeros((100, 100)),
    "row": np.zeros(1000),
    "list": [0.5] * 1000,
    "arrays": [np.zeros(1000)] * 100,
    "dict": {str(number): np.zeros(1000) for number in range(100)},
    "text": "0.5" * 1000,
    "object": [nn.Linear(2, 2)] * 100,
}


@pytest.mark.parametrize("kind", LARGE)
def test_messages_stay_short_however_large_the_value_is(kind: str) -> None:
    def returns(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
        return LARGE[kind]

    attempts: list[Callable[[], Any]] = [
        *(
            lambda name=name: Adam(**{name: LARGE[kind]})
            for name in arguments("Adam")
            if name != "name" or kind != "text"
        ),
        *(lambda name=name: Scaled(**{"lr": 0.5, name: LARGE[kind]}) for name in ("lr", "power")),
        lambda: one_step(type("Returns", (Optimizer,), {"rule": staticmethod(returns)})()),
        lambda: group(lr=LARGE[kind]),
        lambda: group(betas=LARGE[kind]),
        lambda: Schedule(LARGE[kind], 0.5),
        lambda: Schedule([1, 2], LARGE[kind]),
        lambda: StepSchedule(LARGE[kind], 0.5),
        lambda: gen_backend(batch_size=LARGE[kind]),
        lambda: Adam().optimize([module()], LARGE[kind]),
        lambda: Adam().attach(module()).set("lr", LARGE[kind]),
        lambda: neon.torch.Adam([nn.Parameter(w2)], betas=LARGE[kind]),
        lambda: neon.torch.Adam([nn.Parameter(w2)], lr=LARGE[kind]),
        lambda: Adam(**{"lr" * 1000: LARGE[kind]}),
        lambda: neon.torch.Adam([nn.Parameter(w2)], **{"lr" * 1000: LARGE[kind]}),
        lambda: Callbacks([], **{"lr" * 1000: LARGE[kind]}),
    ]
    for attempt in attempts:
        with pytest.raises((TypeError, ValueError)) as caught:
            attempt()
        assert len(str(caught.value)) < 500


class Scaled(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any, power: Any = 1.0, pair: Any = (1.0, 2.0)) -> Any:
        return w - lr * power * pair[0] * g


class Unfit(Optimizer):
    @staticmethod
    def rule(weight: Any, gradient: Any, *, lr: Any = 0.1) -> Any:
        return weight - lr * gradient


class Short(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, velocity: Any, *, lr: Any = 0.1) -> Any:
        return w - lr * g


class Branching(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
        return w - lr * g if g > 0 else w


class Foreign(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
        return w - lr * math.sqrt(g)


class Words(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any = 0.1) -> Any:
        return "w - lr * g"


class Bare:
    def get_params(self) -> None:
        return None


class Wrong:
    def __init__(self, entry: Any) -> None:
        self.entry = entry

    def get_params(self) -> Any:
        return self.entry


def one_step(opt: Optimizer) -> None:
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.ones(2)
    opt.attach([p]).step()


def module() -> nn.Linear:
    return nn.Linear(2, 2)


w2, g2 = torch.ones(2), torch.ones(2)

ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no learning rate": (lambda: GradientDescentMomentum(), TypeError, "learning_rate"),
    "nesterov without momentum": (
        lambda: GradientDescentMomentum(0.1, 0.0, nesterov=True),
        ValueError,
        r"nesterov=True needs a momentum_coef other than 0\. Received: momentum_coef=0",
    ),
    "a norm's bound below 0": (
        lambda: Adam(gradient_clip_norm=-1),
        ValueError,
        r"gradient_clip_norm.*greater than 0.*-1",
    ),
    "a rate in the first place": (lambda: Adam(0.001), TypeError, r"stochastic_round=0\.001.*learning_rate="),
    # rules of the user's own
    "a rule's rate is missing": (lambda: Scaled(), TypeError, r"Scaled needs lr: Scaled\(lr=\.\.\.\)"),
    "a rule's rate is negative": (lambda: Scaled(lr=-1.0), ValueError, r"lr must be.*lr=-1\.0"),
    "a rule's rate is a word": (lambda: Scaled(lr="fast"), TypeError, r"lr must be a number.*lr='fast'"),
    "a rule's number is NaN": (lambda: Scaled(lr=0.1, power=NAN), ValueError, "power must not be NaN"),
    "a rule's pair holds a NaN": (lambda: Scaled(lr=0.1, pair=(1.0, NAN)), ValueError, r"pair.*nan"),
    "a rule's number is a word": (lambda: Scaled(lr=0.1, power="2"), TypeError, r"power.*'2'"),
    "a rule has no such number": (
        lambda: Scaled(lr=0.1, powr=2.0),
        TypeError,
        r"Scaled has no argument 'powr'\. Its arguments: .*power, pair",
    ),
    "a rule of another form": (
        lambda: Unfit().attach([nn.Parameter(w2)]),
        TypeError,
        r"def rule\(w, g, state, \*, lr\)",
    ),
    "a rule that returns too little": (
        lambda: one_step(Short()),
        TypeError,
        r"must return the new weight and its 1 states",
    ),
    "a rule that branches": (lambda: one_step(Branching()), TypeError, r"cannot branch on.*Use where"),
    "a rule that leaves the graph": (lambda: one_step(Foreign()), TypeError, r"cannot turn.*into a number.*sqrt"),
    "a rule that returns no expression": (lambda: one_step(Words()), TypeError, r"must return an expression for 'w'"),
    "no rule at all": (lambda: one_step(Optimizer()), TypeError, "neither a rule nor an optimize"),
    "no rule at all, in optimize": (
        lambda: Optimizer().optimize([Wrong(((w2, g2), []))], 0),
        TypeError,
        "Optimizer has neither a rule nor an optimize",
    ),
    # mappings
    "no mapping": (lambda: MultiOptimizer(Adam()), TypeError, r"optimizer_mapping must be a dict.*Received: neon.Adam"),
    "an empty mapping": (lambda: MultiOptimizer({}), ValueError, "needs the key 'default'"),
    "no default": (lambda: MultiOptimizer({"Linear": Adam()}), ValueError, r"needs the key 'default'.*'Linear'"),
    "a key that is no string": (
        lambda: MultiOptimizer({"default": Adam(), nn.Linear: Adam()}),
        TypeError,
        r"keys must be strings.*Linear",
    ),
    "a class for an optimizer": (
        lambda: MultiOptimizer({"default": Adam}),
        TypeError,
        r"\['default'\] must be an Optimizer",
    ),
    "torch's optimizer": (
        lambda: MultiOptimizer({"default": torch.optim.SGD([nn.Parameter(w2)], lr=0.1)}),
        TypeError,
        r"\['default'\] must be an Optimizer",
    ),
    "a broken regular expression": (
        lambda: MultiOptimizer({"default": Adam(), "re:(unclosed": Adam()}),
        ValueError,
        r"re:\(unclosed",
    ),
    "a mapping's norm": (
        lambda: MultiOptimizer({"default": Adam()}, gradient_clip_norm=0),
        ValueError,
        "gradient_clip_norm",
    ),
    "a mapping's name": (lambda: MultiOptimizer({"default": Adam()}, 3), TypeError, "name must be a string or None"),
    # targets
    "nothing": (lambda: Adam().attach(None), TypeError, r"attach takes a module.*NoneType"),
    "a tensor": (lambda: Adam().attach(nn.Parameter(w2)), TypeError, r"attach takes a module.*Parameter"),
    "a dict": (lambda: Adam().attach({"w": nn.Parameter(w2)}), TypeError, r"attach takes a module.*dict"),
    "a string": (lambda: Adam().attach("model"), TypeError, r"attach takes a module.*str"),
    "a class": (lambda: Adam().attach(nn.Linear), TypeError, "attach takes a module"),
    "numbers": (lambda: Adam().attach([1.0, 2.0]), TypeError, "float"),
    "an empty list": (lambda: Adam().attach([]), ValueError, "empty"),
    "a result, not a leaf": (lambda: Adam().attach([nn.Parameter(w2) * 2]), ValueError, "non-leaf"),
    "one parameter in two groups": (
        lambda: Adam().attach([{"params": [p]} for p in [nn.Parameter(w2)] * 2]),
        ValueError,
        "more than one parameter group",
    ),
    "an unknown key of a group": (
        lambda: Adam().attach([{"params": [nn.Parameter(w2)], "optimizer": "fast"}]),
        ValueError,
        r"param_group\['optimizer'\] must be one of 'default'\. Received: 'fast'",
    ),
    "a group's rate is negative": (lambda: group(lr=-0.1), ValueError, r"lr.*-0\.1"),
    "a group's rate is NaN": (lambda: group(lr=NAN), ValueError, r"lr.*nan"),
    "a group's rate is a word": (lambda: group(lr="fast"), TypeError, r"lr.*'fast'"),
    "a group's beta is 1": (lambda: group(betas=(0.9, 1.0)), ValueError, r"betas.*1\.0"),
    "a group has too few betas": (lambda: group(betas=(0.9,)), ValueError, r"betas.*\(0\.9,\)"),
    "a group's epsilon is 0": (lambda: group(eps=0.0), ValueError, r"eps.*0\.0"),
    "a group's decay is negative": (lambda: group(weight_decay=-1.0), ValueError, r"weight_decay.*-1\.0"),
    "a group's clip is 0": (lambda: group(gradient_clip_norm=0.0), ValueError, r"gradient_clip_norm.*0\.0"),
    "a group's rounding is a word": (lambda: group(stochastic_round="yes"), TypeError, r"stochastic_round.*'yes'"),
    "the name of neon's constructor in a group": (
        lambda: group(learning_rate=0.1),
        (TypeError, ValueError),
        "learning_rate",
    ),
    # epochs and the backend
    "a negative epoch": (lambda: Adam().attach(module()).set_epoch(-1), ValueError, r"epoch.*-1"),
    "an epoch that is a word": (lambda: Adam().optimize([module()], "one"), TypeError, r"epoch.*'one'"),
    "an epoch that is NaN": (lambda: Adam().optimize([module()], NAN), ValueError, r"epoch.*nan"),
    "a batch of none": (lambda: gen_backend(batch_size=0), ValueError, r"(bsz|batch_size).*0"),
    "half a batch": (lambda: Backend(2.5), TypeError, r"2\.5"),
    "a clip value of 0": (lambda: Adam().clip_gradient_value(g2, 0), ValueError, r"clip_value.*0"),
    "a clip norm that is NaN": (lambda: Adam().clip_gradient_norm([], NAN), ValueError, r"clip_norm.*nan"),
    # layers
    "no layer": (lambda: Adam().optimize([3], 0), TypeError, r"layer must have get_params\(\).*int"),
    "no list": (lambda: Adam().optimize(None, 0), TypeError, r"get_params\(\).*NoneType"),
    "a class of layers": (lambda: Adam().optimize([nn.Linear], 0), TypeError, r"layer"),
    "get_params gives nothing": (lambda: get_param_list([Bare()]), TypeError, r"get_params\(\) of Bare must return"),
    "get_params gives a pair": (
        lambda: get_param_list([Wrong((w2, g2))]),
        TypeError,
        r"get_params\(\) of Wrong must return",
    ),
    "states that are no list": (lambda: get_param_list([Wrong(((w2, g2), ()))]), TypeError, "with states a list"),
    "a parameter that is no tensor": (
        lambda: Adam().optimize([Wrong((([1.0], g2), []))], 0),
        TypeError,
        r"get_params\(\) of Wrong.*list",
    ),
}


def group(**values: Any) -> Any:
    return Adam().attach([{"params": [nn.Parameter(torch.ones(2))], **values}])


@pytest.mark.parametrize("title", ERRORS)
def test_what_is_wrong_is_named(title: str) -> None:
    action, error, message = ERRORS[title]
    with pytest.raises(error, match=message):
        action()
