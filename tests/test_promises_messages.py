"""Messages are short, whatever parameters, layers, rules and classes are called and however many there are."""

# pyright: reportArgumentType=false
# the table passes wrong types on purpose

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from neon.optimizers import Adam, MultiOptimizer, Optimizer

LONG = "a_very_long_name_" * 300
MANY_DIMENSIONS = torch.ones([1] * 60, dtype=torch.float64)


class Plain:
    def __init__(self, **attributes: Any) -> None:
        self.name = LONG
        self.w, self.g = (torch.ones(1, dtype=torch.float64) for _ in range(2))
        self.states: list[Any] = []
        for name, value in attributes.items():
            setattr(self, name, value)

    def get_params(self) -> Any:
        return (self.w, self.g), self.states


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no words for it")


def long_class(rule: Any = None) -> Any:
    return type(LONG, (Optimizer,), {"rule": rule and staticmethod(rule)})


def rule_of(source: str) -> Any:
    """A rule with a hundred states or numbers, which is no fun to write."""
    return eval(source.replace("MANY", ", ".join(f"number_{i}" for i in range(100))))


def parts_of(w: torch.Tensor) -> list[Plain]:
    return [Plain(w=w, g=torch.ones(3)), Plain(w=w[1:], g=torch.ones(2))]


MESSAGES: dict[str, tuple[Callable[[], Any], str]] = {
    "a complex parameter": (lambda: Adam().optimize([Plain(w=torch.ones(1) * 1j)], 0), "complex64"),
    "a gradient of another shape": (lambda: Adam().optimize([Plain(g=MANY_DIMENSIONS)], 0), "gradient of parameter"),
    "both of many dimensions": (
        lambda: Adam().optimize([Plain(g=MANY_DIMENSIONS, w=MANY_DIMENSIONS.expand(*[1] * 59, 2).clone())], 0),
        "gradient of parameter",
    ),
    "a state of another shape": (lambda: Adam().optimize([Plain(states=[MANY_DIMENSIONS] * 2)], 0), "A state of"),
    "states": (lambda: Adam().optimize([Plain(states=[torch.ones(1)] * 5)], 0), "holds 5 tensors"),
    "an expanded parameter": (lambda: Adam().optimize([Plain(w=torch.ones(1).expand(3))], 0), "is an expanded"),
    "rounding": (lambda: Adam(stochastic_round=3).optimize([Plain()], 0), "stochastic_round=3"),
    "split": (
        lambda: Adam(master="split").optimize([Plain(w=torch.ones(1, dtype=torch.float16))], 0),
        "is float16",
    ),
    "a part of another": (
        lambda: Adam().optimize(parts_of(torch.ones(3)), 0),
        "or a state of it shares memory with parameter",
    ),
    "one list of states": (
        lambda: (lambda states: Adam().optimize([Plain(states=states), Plain(states=states)], 0))([]),
        "have one list of states",
    ),
    "a class without a rule": (lambda: long_class()().optimize([Plain()], 0), "has neither a rule nor"),
    "an argument of a class": (lambda: long_class()(lerning_rate=1), "has no argument 'lerning_rate'"),
    "a scale of a class": (lambda: long_class()(lr_scale=2.0), "no rule with an lr"),
    "a rule of another form": (
        lambda: long_class(rule_of("lambda weight, g, *, MANY: weight"))(),
        "must take the weight and the gradient first",
    ),
    "what a rule needs": (
        lambda: long_class(rule_of("lambda w, g, *, MANY: w"))(),
        r"needs number_0, .*\(100 in all\)",
    ),
    "a rule with many states": (
        lambda: long_class(rule_of("lambda w, g, MANY, *, lr=0.1: w"))().optimize([Plain()], 0),
        "must return the new weight and its 100 states",
    ),
    "a word for a rule": (
        lambda: long_class(lambda w, g, *, lr=0.1: LONG)().optimize([Plain()], 0),
        "must return an expression for 'w'",
    ),
    "the states of a rule": (
        lambda: Adam(state_dtype={LONG: "bfloat16"}).optimize([Plain()], 0),
        "state_dtype names a state",
    ),
    "a layer": (lambda: Adam().optimize([type(LONG, (), {})()], 0), "A layer must have"),
    "a key without words": (lambda: MultiOptimizer({"default": Adam(), Unprintable(): None}), "must be strings"),
    "keys without words": (lambda: MultiOptimizer({Unprintable(): None}), "needs the key 'default'"),
    "a value without words": (lambda: Adam(learning_rate=Unprintable()), "learning_rate must be a number"),
}


@pytest.mark.parametrize("title", MESSAGES)
def test_messages_stay_short_whatever_things_are_called(title: str) -> None:
    action, words = MESSAGES[title]
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        action()
    assert len(str(caught.value)) < 500, str(caught.value)
