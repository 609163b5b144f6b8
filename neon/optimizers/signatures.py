"""The options that constructors take by `**options`: their names and types, for editors and `inspect.signature`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypedDict, get_args

from typing_extensions import get_type_hints

from neon.engine.program.numbers import Number
from neon.engine.program.options import DESCRIBED, SUPPLIED
from neon.engine.tensors.weight_matrices import Parts
from neon.optimizers.schedules import Schedule

_Parameter = inspect.Parameter
# What rules of matrices take besides.
_PARTS = _Parameter("parts", _Parameter.KEYWORD_ONLY, default=None, annotation=Parts)


class CommonOptions(TypedDict, total=False):
    """What no constructor names by itself."""

    decay_form: str | None
    state_dtype: Any
    master: str | None
    weight_average: float | None
    lr_scale: float
    seed: int


class StorageOptions(CommonOptions, total=False):
    """What the constructor of no rule names by itself."""

    maximize: bool


class DecayOptions(StorageOptions, total=False):
    """The same, of rules whose documented constructor has no weight decay."""

    wdecay: float


class ScheduleOptions(StorageOptions, total=False):
    """The same, of rules that have a weight decay and no schedule."""

    schedule: Schedule | None


class ScheduleDecayOptions(DecayOptions, ScheduleOptions, total=False):
    """The same, of rules with neither."""


class GradientClips(TypedDict, total=False):
    """Both clips of gradients."""

    gradient_clip_norm: float | None
    gradient_clip_value: float | None


class GradientClipOptions(ScheduleDecayOptions, GradientClips, total=False):
    """The same, of rules that do not clip gradients either."""


class ClipDecayOptions(DecayOptions, GradientClips, total=False):
    """The same, of rules with a schedule, and no decay or clipping."""

    param_clip_value: float | None


def signature_of_base(types: Mapping[str, Any]) -> inspect.Signature:
    """What the constructor of `Optimizer` takes: a name, every option, the numbers of a rule of one's own."""
    options = [
        _Parameter(word, _Parameter.KEYWORD_ONLY, default=option.default, annotation=types[word])
        for word, option in DESCRIBED.items()
    ]
    name = options[0].replace(kind=_Parameter.POSITIONAL_OR_KEYWORD)
    own = _Parameter("self", _Parameter.POSITIONAL_OR_KEYWORD)
    return inspect.Signature([own, name, *options[1:], _Parameter("hyperparameters", _Parameter.VAR_KEYWORD)])


class NamedOptions:
    """A class's `__signature__`: that of its constructor, with what it takes by `**` under the names.

    Of `**options: Unpack[SomeOptions]` these are the names in SomeOptions, with the defaults that a base class, or
    one of `others`, has for them; where the class declares numbers and has no constructor of its own, these, and of
    a rule of one's own its keyword arguments.
    """

    def __init__(self, *others: type) -> None:
        self._others = others

    def __get__(self, instance: object, owner: Any) -> inspect.Signature | None:
        _, *named = inspect.signature(owner.__init__).parameters.values()
        if not named or named[-1].kind is not _Parameter.VAR_KEYWORD:
            return None  # nothing to add to what inspect finds itself
        rest = named.pop()
        if "Unpack" in str(rest.annotation):
            named += self._options(owner, rest.name)
        elif rest.name == "hyperparameters" and owner._declared.numbers:
            numbers, types = owner._declared.numbers, {p.name: p.annotation for p in named}
            named = [p.replace(kind=_Parameter.KEYWORD_ONLY) for p in named if p.name not in numbers]
            named[:0] = [_of_number(name, number, types) for name, number in numbers.items()]
        elif rest.name == "hyperparameters":
            place = sum(p.kind is not _Parameter.KEYWORD_ONLY for p in named)
            named[place:place] = _hyperparameters(owner)
        else:
            named.append(rest)
        if getattr(owner, "of_matrices", False) and all(p.name != "parts" for p in named):
            rest = [p for p in named if p.kind is _Parameter.VAR_KEYWORD]
            named = [*named[: len(named) - len(rest)], _PARTS, *rest]
        return inspect.Signature(named)

    def _options(self, owner: type, name: str) -> list[inspect.Parameter]:
        """The parameters that `**name: Unpack[SomeOptions]` stands for."""
        [options] = get_args(get_type_hints(owner.__init__)[name])
        known: dict[str, inspect.Parameter] = {}
        for cls in (*owner.__mro__, *(base for other in self._others for base in other.__mro__)):
            for key, parameter in inspect.signature(cls.__init__).parameters.items():
                known.setdefault(key, parameter)
        return [known[key].replace(kind=_Parameter.KEYWORD_ONLY) for key in get_type_hints(options)]


def _of_number(name: str, number: Number[Any], types: Mapping[str, Any]) -> inspect.Parameter:
    found = _Parameter(name, _Parameter.POSITIONAL_OR_KEYWORD, annotation=types.get(name, _Parameter.empty))
    return found if number.required else found.replace(default=number.default)


def _hyperparameters(owner: Any) -> list[inspect.Parameter]:
    """The keyword arguments of a class's rule, but what the engine supplies; none where it is no rule."""
    try:
        rule = inspect.signature(owner.rule).parameters.values() if owner.rule else ()
    except (TypeError, ValueError):
        return []
    return [p for p in rule if p.kind is p.KEYWORD_ONLY and p.name not in SUPPLIED]
