"""The base class of transforms: a rule around the rule of another optimizer, composed before it is traced."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from neon.engine.program.compose import composed
from neon.engine.program.numbers import check_values
from neon.engine.program.options import DECAY, DESCRIBED, SUPPLIED
from neon.engine.program.trace import Rule, signature
from neon.engine.program.views import View
from neon.engine.tensors.weight_matrices import Parts
from neon.messages import listed, received, shortened
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.schedules import is_constant
from neon.optimizers.signatures import NamedOptions


class _AroundOptions(NamedOptions):
    """The `__signature__` of a transform: the inner optimizer, then what any optimizer takes."""

    def __get__(self, instance: object, owner: Any) -> inspect.Signature | None:
        found = super().__get__(instance, owner)
        inner = inspect.Parameter("inner", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Optimizer)
        return None if found is None else inspect.Signature([inner, *found.parameters.values()])


class Transform(Optimizer):
    """A rule around the rule of another optimizer: `Slow(Adam())` is an optimizer like any other.

    A subclass has an `around`: a rule with one argument in front, the inner rule as a function of a weight and a
    gradient that gives the new weight. The states and numbers of that come along. It is called once.

    >>> from neon.optimizers import Adam, Number
    >>> from neon.arguments import positive
    >>> class Slow(Transform):
    ...     @staticmethod
    ...     def around(inner, w, g, *, share):
    ...         return w + share * (inner(w, g) - w)
    ...     share = Number(0.5, positive)
    >>> Slow(Adam(gradient_clip_norm=1.0), share=0.1)
    Slow(Adam(lr=0.001, betas=(0.9, 0.999), eps=1e-08, gradient_clip_norm=1.0), share=0.1)

    `inner.change(w, g)` is what the rule adds to the weight, not rounded to the weight's digits.
    `around` may keep states of its own, and read numbers of the inner rule by their names, such as `lr`; it may give
    others, as in `inner(w, g, lr=lr / 2)`. Options (clipping, formats, schedule, name) that the inner optimizer has are
    the transform's; the same option given to both is refused, but for the name. A weight decay that is given to the
    transform counts in the place of one that is a number of the inner rule. A `view` is the transform's or the inner
    rule's. Raises `TypeError` for what has no rule, and where both have a state or a number of one name.
    """

    around: Callable[..., Any] | None = None
    inner: Optimizer
    # Whether a form of weight decay goes around what the transform makes of the rule, not within.
    _decay_beside: ClassVar[bool] = False
    __signature__ = _AroundOptions()

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        around = cls.around
        if around is not None and cls.compose is Transform.compose:
            cls._declared.check_read(cls, lambda: inspect.signature(around).parameters)

    def __init__(self, inner: Optimizer, *numbers: Any, **arguments: Any) -> None:
        self.inner = _checked_inner(type(self).__name__, inner)
        self.of_matrices = inner.of_matrices
        super().__init__(*numbers, **arguments)
        given = {*[*self._declared.numbers][: len(numbers)], *arguments}
        self._check_given([name for name in self._declared.required if name not in given])
        self._words = self._own_words(given)
        self._options = tuple(word for word in DESCRIBED if word in given)
        self._take_options(given)
        self._check_values(self.group())

    __init__.__signature__ = vars(Optimizer.__init__)["__signature__"]  # type: ignore[attr-defined]

    def __setattr__(self, name: str, value: Any) -> None:
        """Numbers of the inner optimizer are set there."""
        inner = vars(self).get("inner")
        if inner is not None and name in inner._declared.numbers and name not in self._declared.numbers:
            setattr(inner, name, value)
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if (inner := vars(self).get("inner")) is not None and name in inner._declared.numbers:
            return getattr(inner, name)
        raise AttributeError(f"{shortened(type(self).__name__)} has no {name}.")

    def compose(self, rule: Rule) -> Rule:
        """The rule around one of the inner optimizer's; the same each time."""
        around = type(self).around
        if around is None:
            raise TypeError(
                f"{shortened(type(self).__name__)} has no around: give it a static method around(inner, w, g, *states)."
            )
        return composed(around, rule)

    def select_rule(self, values: Mapping[str, Any]) -> Rule:
        return self._around(self.inner.rule_of({**values, DECAY: None} if self._decay_beside else values))

    def rule_of(self, values: Mapping[str, Any]) -> Rule:
        rule = self.select_rule(values)
        return self._decayed(rule, values.get(DECAY)) if self._decay_beside else rule

    def select_view(self, values: Mapping[str, Any]) -> View | None:
        own, inner = self._own_view(values), self.inner.select_view(values)
        if own is not None and inner is not None:
            raise TypeError(
                f"{shortened(type(self).__name__)} and {shortened(type(self.inner).__name__)} each say what a weight "
                "is at evaluation. Leave one of them out."
            )
        return inner if own is None else own

    def _own_view(self, values: Mapping[str, Any]) -> View | None:
        """What the transform itself says that a weight is at evaluation."""
        return type(self).view

    def hyperparameters(self) -> dict[str, Any]:
        own, numbers = self._declared.values(self), self.inner.hyperparameters()
        if "wdecay" in self._options and "weight_decay" in numbers:
            numbers["weight_decay"] = self.wdecay
        return {**numbers, **{word: own[word] for word in self._words}}

    @property
    def _widest_rule(self) -> Rule:
        return self._around(self.inner._widest_rule or self.inner.select_rule({}))

    @property
    def parts(self) -> Parts:
        """Those of the inner optimizer."""
        return self.inner.parts

    @parts.setter
    def parts(self, value: Parts) -> None:
        self.inner.parts = value

    def scale_of(self, shape: tuple[int, int], values: Mapping[str, Any]) -> float | None:
        return self.inner.scale_of(shape, values)

    def _decouples(self, values: Mapping[str, Any]) -> bool:
        return self.inner._decouples(values)

    @property
    def _rule_varies(self) -> bool:
        return self.inner._rule_varies

    @property
    def _pairs(self) -> list[tuple[str, str]]:
        return [*self._declared.pairs, *self.inner._pairs]

    def _around(self, rule: Rule) -> Rule:
        made = vars(self).setdefault("_made", {})
        return made.get(rule) or made.setdefault(rule, self.compose(rule))

    def _own_words(self, given: set[str]) -> tuple[str, ...]:
        """The numbers that are the transform's own, by the words of groups, of which those given must be some."""
        kind, inner = (shortened(type(each).__name__) for each in (self, self.inner))
        known, read = self.inner.hyperparameters(), signature(self._widest_rule).keywords
        stems = {number.stem: name for name, number in self._declared.numbers.items() if number.stem in read}
        if (both := [word for word in stems if word in known]) and self._is_composed:
            raise TypeError(f"{kind} and {inner}, which it is around, both have the number {listed(both)}.")
        own = {word: name for word, name in stems.items() if word not in known}
        if strange := [name for name in self._declared.numbers if name in given and name not in own.values()]:
            raise TypeError(
                f"{kind} around {inner} does not read {listed(strange)}: its own numbers are {listed(own.values())}, "
                f"and {inner} has {listed(known)}. Leave it out."
            )
        there = {*own, *known, *SUPPLIED, "weight_decay"}
        if missing := [
            word for word, default in read.items() if default is inspect.Parameter.empty if word not in there
        ]:
            raise TypeError(f"{kind} reads {listed(missing)}, which {inner}, the optimizer that it is around, has not.")
        return tuple(own)

    @property
    def _is_composed(self) -> bool:
        """Whether its rule is made of the inner one, not written out."""
        return True

    def _take_options(self, given: set[str]) -> None:
        """Have the options of the inner optimizer, which is only a rule from now on."""
        kind, inner = (shortened(type(each).__name__) for each in (self, self.inner))
        for word, value in _options_of(self.inner).items():
            if word in given and word != "name":
                raise ValueError(f"{word} was given to {inner} and to {kind} around it. Give it to one of them.")
            if word not in given:
                setattr(self, word, value)

    def _check_values(self, values: Mapping[str, Any]) -> None:
        self.inner._check_values(values)
        check_values({word: values[word] for word in self._words}, self._declared.checks)

    def __repr__(self) -> str:
        own = self._declared.values(self)
        shown = {word: own[word] for word in self._words} | {word: getattr(self, word) for word in self._options}
        return f"{type(self).__name__}({', '.join([repr(self.inner), *(f'{k}={v!r}' for k, v in shown.items())])})"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "_made"}


def _checked_inner(kind: str, inner: Any) -> Optimizer:
    """Refuse what has no rule to be around."""
    if not isinstance(inner, Optimizer):
        raise TypeError(f"inner must be an optimizer, as in {kind}(Adam()). {received('inner', inner)}")
    if inner._optimizers_by_key is not None:
        raise TypeError(f"{kind} is around one rule, and a mapping has many: put it around each optimizer within.")
    if inner._by_hand:
        raise TypeError(
            f"{kind} is around a rule, and {shortened(type(inner).__name__)} has an optimize() of its own. Write it "
            "as a rule: a static method rule(w, g, *states, *, lr)."
        )
    return inner


def _options_of(inner: Optimizer) -> dict[str, Any]:
    """The options that an optimizer was given; a weight decay among its numbers is none."""
    numbers, signature_of = inner.hyperparameters(), inspect.signature(type(inner)).parameters
    found = {word: getattr(inner, word) for word in DESCRIBED if word != "wdecay" or "weight_decay" not in numbers}
    return {
        word: value
        for word, value in found.items()
        if (not is_constant(value) if word == "schedule" else value != DESCRIBED[word].default)
        and not (word == "name" and value == signature_of["name"].default)  # some have a name of their own
    }
