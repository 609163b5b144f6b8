"""What messages say of names and values: never more of them than a reader can take in."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable
from typing import Any

# No message is longer than this, however large the model.
LONGEST = 490
_LONGEST_NAME, _LONGEST_VALUE = 60, 120
_FEW = 4  # numbers in an array that is shown itself


def listed(names: Iterable[str], room: int = 160) -> str:
    """As many of the names as have room, in characters, and how many there are; `none` where there are none.

    >>> listed(["weight", "bias"])
    'weight, bias'
    >>> listed((f"layers.{i}" for i in range(100)), room=20)
    'layers.0, layers.1, ... (100 in all)'
    """
    names = [shortened(name) for name in names]
    few: list[str] = []
    for name in names:
        room -= len(name) + 2
        if few and room < -2:
            break
        few.append(name)
    more = f", ... ({len(names)} in all)" if len(few) < len(names) else ""
    return (", ".join(few) or "none") + more


def shortened(text: str, most: int = _LONGEST_NAME) -> str:
    """The text, or its beginning and its end where it is longer than `most`."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]}...{text[-half:]}"


class _Short(reprlib.Repr):
    """`repr` within a line; of arrays and tensors the type and the shape."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = _LONGEST_VALUE
        self.maxlevel = 3

    def repr1(self, x: Any, level: int) -> str:
        shape = getattr(x, "shape", None)
        if isinstance(shape, tuple) and not isinstance(x, type) and math.prod(shape) > _FEW:
            return f"<{type(x).__name__} of shape {tuple(shape)}>"
        return super().repr1(x, level)


_short = _Short()


def shown(value: Any, most: int = _LONGEST_VALUE) -> str:
    """What `repr` gives, in a line, however large the value is."""
    return shortened(_short.repr(value), most)


def quoted(name: str) -> str:
    """A name in quotes, its middle left out where it is long.

    >>> quoted("blocks.0.attention.weight")
    "'blocks.0.attention.weight'"
    """
    return shown(name, _LONGEST_NAME)


def received(name: str, value: Any) -> str:
    """What errors say of a value that was given."""
    return f"Received: {name}={shown(value)}."


def kind_of(value: Any) -> str:
    """A number or a string as it is, anything else by its type; of tuples and lists, what is in them.

    >>> import torch
    >>> kind_of(((torch.ones(30), None), ["adam", 2]))
    "((torch.Tensor, None), ['adam', 2])"
    """
    return shortened(_kind(value, 3), 160)


def _kind(value: Any, depth: int) -> str:
    if isinstance(value, (tuple, list)) and depth:
        inside = ", ".join([_kind(item, depth - 1) for item in value[:4]] + ["..."] * (len(value) > 4))
        return f"[{inside}]" if isinstance(value, list) else f"({inside})"
    if value is None or isinstance(value, (bool, int, float, str)):
        return shortened(repr(value))
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    package = type(value).__module__.split(".")[0]
    return type(value).__qualname__ if package == "builtins" else f"{package}.{type(value).__qualname__}"
