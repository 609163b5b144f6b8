"""What neon.optimizers exports, and an example of each rule: what commands list follows from here."""

from __future__ import annotations

import inspect

from neon import optimizers
from neon.engine.program.numbers import examples
from neon.optimizers import Optimizer, Schedule, Transform


def library_classes() -> dict[str, type]:
    """Every public optimizer and schedule by name, aliases too."""
    found = {name: getattr(optimizers, name) for name in dir(optimizers) if not name.startswith("_")}
    return {
        name: value
        for name, value in found.items()
        if inspect.isclass(value) and issubclass(value, (Optimizer, Schedule)) and value not in (Optimizer, Transform)
    }


def exported_rules() -> dict[str, type[Optimizer]]:
    """The exported optimizers that have a rule, each once, in the order of `neon.optimizers.__all__`."""
    exported = (getattr(optimizers, name) for name in optimizers.__all__)
    classes = (value for value in exported if inspect.isclass(value) and issubclass(value, Optimizer))
    return {cls.__name__: cls for cls in classes if cls.rule is not None}


def works_on_matrices(rule: type[Optimizer]) -> bool:
    """Whether a rule calls functions of whole matrices.

    >>> [works_on_matrices(rule) for rule in (optimizers.Muon, optimizers.Adam)]
    [True, False]
    """
    optimizer = rule(**example_numbers(rule))
    return optimizer.settings(optimizer.group()).program.calls


def example_numbers(rule: type[Optimizer]) -> dict[str, float]:
    """The numbers that a rule has no defaults for, as it declares them; 0.5 for what a constructor of its own asks for.

    >>> example_numbers(optimizers.GradientDescentMomentum)
    {'learning_rate': 0.01, 'momentum_coef': 0.9}
    """
    declared = examples(rule)
    named = [each for each in inspect.signature(rule).parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
    return {each.name: declared.get(each.name, 0.5) for each in named if each.default is each.empty}


def example_text(rule: type[Optimizer]) -> str:
    """The example as it is written: `Adam()`."""
    return f"{rule.__name__}({', '.join(f'{name}={value!r}' for name, value in example_numbers(rule).items())})"
