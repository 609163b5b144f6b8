"""What a rule declares of its numbers: default, check, the word that parameter groups have for each, meaning."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar, overload

from torch import Tensor

from neon.arguments import non_negative, plain
from neon.engine.program.options import DESCRIBED, GROUPED, MOST, OF_SIDES, RESERVED, SCALE, SUPPLIED, Check
from neon.messages import listed, received, shown

T = TypeVar("T")
# What each value of a group may be: the value that needs no check, and the check of others.
Checks = Mapping[str, tuple[Any, Check]]

_NOTHING: Any = object()
# Of every rule: the engine relies on it.
_OF_ALL: Checks = {option.key: (option.default, option.check) for option in GROUPED.values()} | {
    "lr": (_NOTHING, non_negative),
    "epoch": (0, non_negative),
}
# Constructors of neon's rules keep the documented words; groups, and torch's classes, have torch's: pairs of both.
_WORDS = {(option.word, option.key): None for option in DESCRIBED.values() if option.word == "wdecay"}
# The options of an instance by the keys of groups; a weight decay stands before the numbers, which may have their own.
OF_GROUP = {o.key: [word] for word, o in DESCRIBED.items() if o.grouped and word != "wdecay"}
_NEVER_NAN = {type(None), bool, str}
# From here on a whole number has no float.
_TOO_LARGE = 2**1024 - 2**970
_COUNTS = {2: "two", 3: "three", 4: "four"}


class Number(Generic[T]):
    """A number of a rule, as an attribute of its class, which checks whatever it is set to.

        beta_1 = Number(0.9, beta, "betas[0]", "β₁ in [0, 1)")

    With the default None it has to be given, unless it is `optional`; `example` stands for it where somebody needs one.
    The word is the group's, by default the attribute's own name.
    """

    def __init__(
        self,
        default: T | None,
        check: Callable[[str, Any], T],
        word: str = "",
        meaning: str = "",
        *,
        example: Any = None,
        optional: bool = False,
    ) -> None:
        self.required = default is None and not optional
        self.default, self.check, self.word, self.meaning = default, check, word, meaning
        self.example = default if example is None else example

    def __set_name__(self, owner: type, name: str) -> None:
        self.name, self.word = name, self.word or name
        if self.stem != name and owner.__module__.startswith("neon."):
            _WORDS[name, self.stem] = None

    @property
    def stem(self) -> str:
        """The word without its place in a tuple."""
        return self.word.split("[")[0]

    @overload
    def __get__(self, instance: None, owner: type) -> Number[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        found = vars(instance).get(self.name, self.default)
        if found is None and self.required:
            raise AttributeError(f"{owner.__name__} has been given no {self.name}.")
        return found

    def __set__(self, instance: object, value: Any) -> None:
        vars(instance)[self.name] = self.check(self.name, value)


class Declared:
    """The numbers of a class of rules, in the order declared, and what follows from them.

    `values` reads those of an instance by the words of groups, `group` with the options beside them. `bounds` are
    checks of values that a group of such a rule may have besides. `properties` are the options and numbers that the
    class keeps by properties of its own, `words` those of groups for its numbers.
    """

    def __init__(self, owner: type, bounds: Mapping[str, Check] | None = None) -> None:
        found: dict[str, Number[Any]] = {}
        for base in reversed(owner.__mro__):
            found |= {name: number for name, number in vars(base).items() if isinstance(number, Number)}
        self.numbers = dict(sorted(found.items(), key=lambda item: not item[1].required))  # required ones first
        self.defaults = {name: number.default for name, number in self.numbers.items() if not number.required}
        self.required = [name for name in self.numbers if name not in self.defaults]
        words: dict[str, list[Number[Any]]] = {}
        for number in self.numbers.values():
            words.setdefault(number.stem, []).append(number)
        for word, numbers in words.items():
            numbers.sort(key=lambda number: (len(number.word), number.word))
            _check_words(owner, word, numbers)
        for name, number in found.items():
            _check_number(owner, name, number)
        self.pairs = [(number.name, number.stem) for number in found.values() if number.name != number.stem]
        self.words = [*words]
        names = {word: [n.name for n in numbers] for word, numbers in words.items()}
        options = OF_GROUP if "lr" in words else {key: word for key, word in OF_GROUP.items() if key != SCALE}
        self.values = reader(names)
        self.group = reader({"weight_decay": ["wdecay"], **names, **options}, epoch=0)
        kept = {name: inspect.getattr_static(owner, name, None) for name in (*DESCRIBED, *self.numbers)}
        self.properties = [n for n, x in kept.items() if hasattr(x, "__set__") and not isinstance(x, Number)]
        self.checks: Checks = {
            **_OF_ALL,
            **{name: (_NOTHING, check) for name, check in (bounds or {}).items()},
            **{word: _check_of(numbers) for word, numbers in words.items()},
        }

    def check_read(self, owner: type, keywords: Callable[[], Collection[str]]) -> None:
        """Refuse numbers that the class itself declares, and that its rule does not read."""
        for name, number in self.numbers.items():
            read = {*keywords()}
            if name in vars(owner) and number.stem not in read and not (number.stem == MOST and read & {*OF_SIDES}):
                raise TypeError(
                    f"{owner.__name__}.{name} is the rule's {number.word!r}, which it does not read: it reads "
                    f"{listed(keywords())}. Give the number a word of these, or remove it."
                )


def _check_words(owner: type, word: str, numbers: Sequence[Number[Any]]) -> None:
    """Refuse a word that means something else in groups, and numbers that are no tuple together."""
    taken = {*RESERVED, *SUPPLIED, "weight_decay"} - ({"weight_decay"} if numbers[0].name == "wdecay" else set())
    for number in numbers:
        if word in taken or number.name in {*DESCRIBED} - {"wdecay"}:
            raise TypeError(
                f"{owner.__name__}.{number.name} cannot have the word {number.word!r}: neon keeps {word!r} for itself. "
                "Choose another name; a weight decay is called wdecay, with the word 'weight_decay'."
            )
    places = [f"{word}[{place}]" for place in range(len(numbers))] if len(numbers) > 1 else [word]
    if [number.word for number in numbers] != places:
        raise TypeError(
            f"The numbers of {owner.__name__} under one word must be {listed(places)}. Received: "
            f"{listed([number.word for number in numbers])}."
        )


def _check_number(owner: type, name: str, number: Number[Any]) -> None:
    """Refuse a default that the number's own check refuses, and one that something else takes the place of."""
    if number.default is not None:
        number.check(name, number.default)
    kept = inspect.getattr_static(owner, name)
    if not hasattr(kept, "__set__"):
        raise TypeError(
            f"{owner.__name__}.{name} has to be a Number. {received(name, kept)} Write Number({shown(kept)}, ...)."
        )
    inherits = "__init__" not in vars(owner) and not hasattr(owner.__init__, "__signature__")
    if name in vars(owner) and inherits:
        given = inspect.signature(owner.__init__).parameters.get(name)
        if given is not None and given.default not in (inspect.Parameter.empty, number.default):
            raise TypeError(
                f"{owner.__name__}.{name} starts at {number.default!r}, but the constructor that {owner.__name__} "
                f"inherits gives {given.default!r}. Write a constructor, or give {name} where it is made."
            )


def reader(words: Mapping[str, Sequence[str]], **fixed: Any) -> Callable[[object], dict[str, Any]]:
    """A function that reads attributes of an instance, several under one word as a tuple; with what is fixed.

    It is compiled, for every step of a list of layers calls it: a dict written out takes a third of a loop's time.
    """
    own = {word: [f"own[{name!r}]" for name in names] for word, names in words.items()}
    items = {word: found[0] if len(found) == 1 else f"({', '.join(found)})" for word, found in own.items()}
    items |= {word: repr(value) for word, value in fixed.items()}
    source = ", ".join(f"{word!r}: {item}" for word, item in items.items())
    read = eval(f"lambda own: {{{source}}}")  # noqa: S307  # of names in classes alone

    def values(instance: object) -> dict[str, Any]:
        try:
            return read(vars(instance))
        except KeyError:  # made by an earlier version, or by a constructor that does not call its base class's
            return read({name: getattr(instance, name) for names in words.values() for name in names})

    return values


def _check_of(numbers: Sequence[Number[Any]]) -> tuple[Any, Check]:
    """The check of a group's value: of one number, or of several in a tuple."""
    if len(numbers) > 1:
        return _NOTHING, several([n.check for n in numbers], [n.example for n in numbers])
    return _NOTHING if numbers[0].required else numbers[0].default, numbers[0].check


def several(checks: Sequence[Check], examples: Sequence[Any]) -> Check:
    """The check of a tuple of so many numbers."""

    def check(name: str, value: Any) -> None:
        value = value if isinstance(value, (tuple, list)) else plain(value)
        if not isinstance(value, (tuple, list)) or len(value) != len(checks):
            count = _COUNTS.get(len(checks), len(checks))
            raise ValueError(f"{name} must be {count} numbers, such as {tuple(examples)}. {received(name, value)}")
        for place, (item, one) in enumerate(zip(value, checks, strict=True)):
            _check(f"{name}[{place}]", item, one)

    return check


def check_values(values: Mapping[str, Any], checks: Checks = _OF_ALL) -> None:
    """Refuse, by name, values that a rule cannot run with, and what is no number that it could."""
    for name, value in values.items():
        if (known := checks.get(name)) is not None:
            if value is not known[0]:
                _check(name, value, known[1])
        elif type(value) not in _NEVER_NAN and name not in ("params", "param_names"):
            _check(name, value, no_nan)


def _check(name: str, value: Any, check: Check) -> None:
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"{name} must be a number or a tensor of one element. {received(name, value)}")
        if value.device.type != "cpu":
            return  # reading it would wait for the device
        value = value.item()
    check(name, value)


def check_names(group: Mapping[str, Any], known: Collection[str], pairs: Collection[tuple[str, str]]) -> None:
    """Refuse a constructor's word where a group has torch's name for it.

    `known` are the names that its rule has; `pairs` are the words of its own class, beside neon's.
    """
    for own, word in (*_WORDS, *pairs):
        if own in group and own not in known and word in known and word not in group:
            raise ValueError(f"A parameter group has no {own!r}: it uses torch's names. Write {word!r}.")


def other_word(name: str, known: Collection[str], pairs: Collection[tuple[str, str]] = ()) -> str:
    """A sentence on an argument that is not known: what it is called here if it has another name elsewhere."""
    here = [own for own, word in (*_WORDS, *pairs) if word == name and own in known]
    here += [word for own, word in (*_WORDS, *pairs) if own == name and word in known]
    return f" Here it is called {' and '.join(dict.fromkeys(here))}." if here else ""


def examples(owner: Any) -> dict[str, Any]:
    """What a class of rules cannot be made without, with an example of each: `owner(**examples(owner))`."""
    declared: Declared = owner._declared
    return {name: declared.numbers[name].example for name in declared.required}


def no_nan(name: str, value: Any) -> None:
    """Refuse NaN, and whole numbers that are too large for a float, in tuples too."""
    found = plain(value)
    for item in found if isinstance(found, (tuple, list)) else (found,):
        if isinstance(item, float) and math.isnan(item):
            raise ValueError(f"{name} must not be NaN. {received(name, value)}")
        if isinstance(item, int) and abs(item) >= _TOO_LARGE:
            raise ValueError(f"{name} must be a number that a float can hold. {received(name, value)}")
