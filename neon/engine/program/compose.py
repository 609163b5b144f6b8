"""Composition: a rule made of another, whose step it is given as a function. It is one rule when it is traced."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

from neon.engine.program.graph import Node, walk
from neon.engine.program.spaces import COLUMNS, ROWS
from neon.engine.program.symbols import Symbol, difference
from neon.engine.program.trace import Rule, signature
from neon.messages import listed, shortened

# `around(inner, w, g, *states, *, numbers)`: a rule whose first argument is another rule's step.
Around = Callable[..., Any]

_Parameter = inspect.Parameter
# One rule for each pair, as long as somebody holds it: programs are kept by rules.
_composed: WeakValueDictionary[tuple[Around, Rule], Rule] = WeakValueDictionary()


def composed(around: Around, rule: Rule) -> Rule:
    """The rule that `around` makes of another: its states stand before those of that one, numbers are shared by name.

    Raises `TypeError` where both have something of one name that is not the same number.
    """
    found = _composed.get((around, rule))
    return found if found is not None else _composed.setdefault((around, rule), _compose(around, rule))


class Inner:
    """The inner rule as a function of a weight and its gradient, called once; numbers can be given in place of its own.

    It gives the new weight, its `change` what it adds to the weight. What becomes of its states is kept in `states`.
    """

    def __init__(self, rule: Rule, states: Sequence[Any], numbers: Mapping[str, Any]) -> None:
        self._rule, self.states, self._numbers, self.called = rule, states, numbers, 0

    def __call__(self, w: Any, g: Any, **numbers: Any) -> Any:
        self.called += 1
        result = self._rule(w, g, *self.states, **{**self._numbers, **numbers})
        self.nodes = _below(result) - _below((w, g))
        w, *self.states = result if isinstance(result, (tuple, list)) else (result,)
        return w

    def change(self, w: Any, g: Any, **numbers: Any) -> Any:
        """What the rule adds to the weight: not rounded to the weight's digits where it is written as a sum."""
        return difference(self(w, g, **numbers), w)

    def reads(self, number: str) -> bool:
        """Whether the rule has a number of that name."""
        return number in self._numbers


def _two_matrices(around: Around, rule: Rule) -> TypeError:
    """What is raised where one of two rules has a tensor flattened, and the other has rows or columns of it."""
    return TypeError(
        f"Of {_name(around)} and {shortened(_name(rule))}, which it is around, one sees a tensor of many dimensions as "
        "one matrix, the other as the matrices of its last two dimensions. Leave one of them out."
    )


def _below(values: Any) -> set[Node]:
    """The nodes that symbols are made of."""
    values = values if isinstance(values, (tuple, list)) else (values,)
    return {*walk(value.node for value in values if isinstance(value, Symbol))}


def _compose(around: Around, rule: Rule) -> Rule:
    taken, kept = signature(rule).keywords, len(signature(rule).states)
    _, *own = inspect.signature(around).parameters.values()
    parameters = _joined(_name(around), _name(rule), own, [*inspect.signature(rule).parameters.values()])
    defaults = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is not p.empty}
    read = {p.name for p in own if p.kind is p.KEYWORD_ONLY}
    apart = ("flattened" in read) != ("flattened" in taken)
    if apart and any(state.of in (ROWS, COLUMNS) for state in signature(rule).states.values()):
        raise _two_matrices(around, rule)

    def step(w: Any, g: Any, *states: Any, **given: Any) -> Any:
        numbers = defaults | given
        place = len(states) - kept
        inner = Inner(rule, states[place:], {name: value for name, value in numbers.items() if name in taken})
        own = {name: value for name, value in numbers.items() if name in read}
        result = around(inner, w, g, *states[:place], **own)
        if inner.called != 1:
            raise TypeError(
                f"{_name(around)} must call the rule that it is around once: inner(w, g) gives the new weight, and its "
                f"states move on. It was called {inner.called} times."
            )
        w, *others = result if isinstance(result, (tuple, list)) else (result,)
        foreign = inner.nodes if "flattened" in read else _below((w, *others)) - inner.nodes
        if apart and any(node.space.is_narrow for node in foreign):
            raise _two_matrices(around, rule)
        return (w, *others, *inner.states)

    step.__name__ = step.__qualname__ = f"{_name(around)}_{_name(rule)}"
    step.__doc__ = "\n\n".join(
        text for text in (inspect.getdoc(around), f"around {_name(rule)}:", inspect.getdoc(rule)) if text
    )
    step.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return step


def _joined(
    around: str, rule: str, own: Sequence[inspect.Parameter], inner: Sequence[inspect.Parameter]
) -> list[inspect.Parameter]:
    """The parameters of both, the states of the inner rule last; numbers of one name are one."""
    if [p.name for p in own[:2]] != ["w", "g"]:
        raise TypeError(
            f"{around} must take the inner rule's step, the weight and the gradient first, then states, then numbers "
            f"as keywords: def around(inner, w, g, state, *, lr). Received: {listed(p.name for p in own)}."
        )
    states = [p for each in (own, inner) for p in each[2:] if p.kind is not p.KEYWORD_ONLY]
    numbers = {p.name: p for each in (own, inner) for p in each if p.kind is p.KEYWORD_ONLY}
    counts = Counter([*(p.name for p in states), *numbers])
    if twice := [name for name, count in counts.items() if count > 1]:
        raise TypeError(
            f"{around} and {shortened(rule)}, which it is around, both have {listed(twice)}: choose another name in "
            "one of them."
        )
    states = [p.replace(default=0.0 if p.default is p.empty else p.default) for p in states]
    return [*own[:2], *states, *numbers.values()]


def _name(rule: Any) -> str:
    """What a rule is called; where it is the `around` or the `rule` of a class, as that."""
    name = getattr(rule, "__name__", "rule")
    *_, owner = ["", *getattr(rule, "__qualname__", name).split(".")[:-1]]
    return owner.lower() if name in ("around", "rule") and owner not in ("", "<locals>") else name
