"""What statistics are asked for: of which steps, and of which layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from neon.arguments import positive_integer
from neon.messages import received


@dataclass(frozen=True)
class Statistics:
    """What `attach(model, statistics=...)` takes in the place of True.

    Args:
        every: steps whose number it divides are looked at; the others cost nothing.
        layers: names, patterns or classes, as in a mapping, of those that tables have; None for all.

    Raises:
        ValueError, TypeError: for other values, by name.
    """

    every: int = 1
    layers: Sequence[str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "every", positive_integer("every", self.every))
        layers = (self.layers,) if isinstance(self.layers, str) else self.layers
        if layers is not None:
            if not isinstance(layers, Sequence) or not all(isinstance(key, str) for key in layers) or not layers:
                raise TypeError(
                    f"layers must be names, patterns or classes, or None for all layers. {received('layers', layers)}"
                )
            object.__setattr__(self, "layers", tuple(layers))


def asked(value: Any) -> Statistics | None:
    """What was asked for by True, every so many steps, or `Statistics`; None by False."""
    if value is None or value is False:
        return None
    if isinstance(value, Statistics):
        return value
    try:
        return Statistics(1 if value is True else positive_integer("statistics", value))
    except TypeError:
        raise TypeError(
            f"statistics must be True, every how many steps they are taken, or neon.statistics.Statistics. "
            f"{received('statistics', value)}"
        ) from None
