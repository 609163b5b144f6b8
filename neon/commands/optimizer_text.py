"""Reads "Adam(learning_rate=3e-3)" into an optimizer without evaluating anything.

The string is parsed into Python's syntax tree, and only these pieces of the tree are understood:
calls of the classes of neon.optimizers, numbers, strings, True, False, None, lists, tuples, dicts
and a sign before a number. Everything else is refused before any class is called.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from neon.commands.errors import SpecError, UnknownReferenceError
from neon.commands.library import library_classes
from neon.commands.references import REFERENCE, one_line, resolve
from neon.engine.program.numbers import other_word
from neon.optimizers import Optimizer, Schedule

MAX_LENGTH = 10_000
LABEL_LENGTH = 48
EXAMPLE = "Adam(learning_rate=0.003)"
ALLOWED = (
    "classes of neon.optimizers, numbers, strings, True, False, None, lists, tuples, dicts "
    "and a minus sign before a number"
)
PLAIN = (int, float, str, bool, type(None))
# A reference may stand at the start, after "=", or as the value of a dict; never inside a string.
STRING_OR_REFERENCE = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|"""
    r"((?:^\s*|[:=]\s*)[A-Za-z_][\w.]*):(?=[A-Za-z_])"
)
# What stands for the colon of a reference while Python's grammar reads it.
OF = ".__of__."


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer as the user wrote it.

    Attributes:
        text: the canonical spelling (spaces and number formats do not matter).
        name: the class, without its module.
        arguments: the canonical spelling of each argument.
        build: makes a new optimizer at each call.
    """

    text: str
    name: str
    arguments: tuple[str, ...]
    build: Callable[[], Optimizer]


def parse_optimizer(text: str) -> OptimizerSpec:
    """Read one optimizer.

    >>> spec = parse_optimizer("Adam( learning_rate = 3e-3 )")
    >>> spec.text, spec.name, spec.arguments
    ('Adam(learning_rate=0.003)', 'Adam', ('learning_rate=0.003',))

    A rule of the user's own is written ``mypackage.myfile:MyRule(lr=0.1)``; its module is imported.

    Raises:
        SpecError: the string is not understood, or the class refuses its arguments.
    """
    call = _syntax_tree(text)
    if isinstance(call, ast.Name) or REFERENCE.fullmatch(_spell(call)):
        call = ast.Call(func=call, args=[], keywords=[])
    reader = _Reader(_shorten(text))
    if not isinstance(call, ast.Call):
        raise SpecError(f"{text!r} is not an optimizer. Write {EXAMPLE}.")
    optimizer = reader.value(call)
    if not isinstance(optimizer, Optimizer):
        raise SpecError(
            f"{text!r} makes a {type(optimizer).__name__}, which is not an optimizer. "
            f"Optimizers: {', '.join(_names(Optimizer))}."
        )
    arguments = (*call.args, *call.keywords)
    return OptimizerSpec(
        text=_spell(call),
        name=type(optimizer).__name__,
        arguments=tuple(map(_spell, arguments)),
        build=lambda: cast(Optimizer, reader.value(call)),
    )


def short_labels(specs: Sequence[OptimizerSpec]) -> list[str]:
    """The class name; between optimizers of one class, also the arguments they do not share.

    >>> texts = ["Adam()", "Lion(learning_rate=1e-4)", "Lion(learning_rate=3e-4)"]
    >>> short_labels([parse_optimizer(text) for text in texts])
    ['Adam', 'Lion(learning_rate=0.0001)', 'Lion(learning_rate=0.0003)']
    """
    arguments = {name: [set(spec.arguments) for spec in specs if spec.name == name] for name in {s.name for s in specs}}
    labels = [_label(spec, set.intersection(*arguments[spec.name])) for spec in specs]
    counts = Counter(labels)
    return [label if counts[label] == 1 else f"{label} #{position}" for position, label in enumerate(labels, start=1)]


def _label(spec: OptimizerSpec, shared: set[str]) -> str:
    own = ", ".join(argument for argument in spec.arguments if argument not in shared)
    label = f"{spec.name}({own})" if own else spec.name
    return label if len(label) <= LABEL_LENGTH else label[: LABEL_LENGTH - 1] + "…"


def _names(base: type) -> list[str]:
    return [name for name, cls in library_classes().items() if issubclass(cls, base)]


def _syntax_tree(text: str) -> ast.expr:
    """What Python's grammar makes of the text, with an attribute in the place of each ``module:Class``."""
    if len(text) > MAX_LENGTH:
        raise SpecError(f"an optimizer has at most {MAX_LENGTH} characters; received {len(text)}.")
    plain = STRING_OR_REFERENCE.sub(lambda match: match[0] if match[1] is None else match[1] + OF, text)
    try:
        return ast.parse(plain.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else one_line(error)
        raise SpecError(
            f"cannot read the optimizer {_shorten(text)!r}: {reason}. "
            f"Write a class of neon.optimizers with its arguments, such as {EXAMPLE}."
        ) from error


class _Reader:
    """Turns the permitted pieces of one syntax tree into values."""

    def __init__(self, text: str) -> None:
        self._text = text

    def value(self, node: ast.AST) -> object:
        match node:
            case ast.Constant(value=value) if type(value) in PLAIN:
                return value
            case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as number)) if not isinstance(number, bool):
                return -number
            case ast.List(elts=items):
                return [self.value(item) for item in items]
            case ast.Tuple(elts=items):
                return tuple(self.value(item) for item in items)
            case ast.Dict(keys=keys, values=values):
                return {self._key(key): self.value(item) for key, item in zip(keys, values, strict=True)}
            case ast.Call():
                return self._call(node)
        spelled = _spell(node)
        if spelled in library_classes() or REFERENCE.fullmatch(spelled):
            raise SpecError(f"{self._text!r}: {spelled} is a class; write {spelled}(...).")
        raise SpecError(f"{self._text!r} holds {spelled!r}, which is not allowed. Allowed: {ALLOWED}.")

    def _key(self, node: ast.expr | None) -> object:
        if isinstance(node, ast.Constant) and type(node.value) in PLAIN:
            return node.value
        what = "**" if node is None else _spell(node)
        raise SpecError(
            f"{self._text!r}: the key {what} of a dict must be a string or a number; "
            f'put names in quotes, such as "default".'
        )

    def _call(self, node: ast.Call) -> object:
        cls = self._class(node.func)
        positional = [self.value(argument) for argument in node.args]
        named: dict[str, object] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise SpecError(f"{self._text!r}: ** is not allowed; write each argument's name.")
            named[keyword.arg] = self.value(keyword.value)
        spelled = _spell(node)
        try:
            inspect.signature(cls).bind(*positional, **named)
        except TypeError as error:
            known = inspect.signature(cls).parameters
            words = "".join(other_word(name, known) for name in named if name not in known)
            raise SpecError(f"{spelled}: {error}.{words} {_arguments_of(cls)}") from error
        try:
            return cls(*positional, **named)
        except Exception as error:
            expected = isinstance(error, (TypeError, ValueError))
            raise SpecError(f"{spelled}: {error if expected else one_line(error)}") from error

    def _class(self, node: ast.expr) -> type:
        spelled = _spell(node)
        if REFERENCE.fullmatch(spelled):
            return _own_class(spelled)
        if not isinstance(node, ast.Name):
            raise SpecError(
                f"{self._text!r} calls {spelled!r}, which is not allowed. Only classes of "
                "neon.optimizers, or mypackage.myfile:MyRule for a rule of your own, are called."
            )
        classes = library_classes()
        if node.id not in classes:
            close = difflib.get_close_matches(node.id, classes, n=1, cutoff=0.5)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise SpecError(
                f"unknown class {spelled!r} in {self._text!r}.{hint} Optimizers: {', '.join(_names(Optimizer))}. "
                f"Schedules: {', '.join(_names(Schedule))}."
            )
        return classes[node.id]


def _spell(node: ast.AST) -> str:
    """The canonical text of a piece, with the user's references back in it."""
    return ast.unparse(node).replace(OF, ":")


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


def _own_class(reference: str) -> type:
    try:
        found = resolve(reference)
    except UnknownReferenceError as error:
        raise SpecError(str(error)) from error
    if not (inspect.isclass(found) and issubclass(found, (Optimizer, Schedule))):
        raise SpecError(f"{reference} must be a subclass of neon.optimizers.Optimizer or Schedule; received {found!r}.")
    return found


def _arguments_of(cls: type) -> str:
    parameters = inspect.signature(cls).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = ", ".join(each.name for each in parameters if each.kind not in variadic)
    return f"{cls.__name__} takes {names}." if names else f"{cls.__name__} takes no arguments."
