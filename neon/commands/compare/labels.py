"""How optimizers and accuracies are written in tables and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from neon.commands.optimizer_text import OptimizerSpec

MAX_LENGTH = 48


def short_labels(specs: Sequence[OptimizerSpec]) -> list[str]:
    """The class name; between optimizers of one class, also the arguments they do not share.

    >>> from neon.commands.optimizer_text import parse_optimizer
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
    return label if len(label) <= MAX_LENGTH else label[: MAX_LENGTH - 1] + "…"


def percent(share: float) -> str:
    """A share of one in per cent, with one digit.

    >>> percent(0.9876)
    '98.8 %'
    """
    return f"{100 * share:.1f} %"


def decimal(value: float) -> str:
    """A loss with four digits after the point, or in powers of ten where it is large.

    >>> decimal(0.03571), decimal(2583351.25)
    ('0.0357', '2.6e+06')
    """
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.1e}"
