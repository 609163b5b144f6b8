"""What is measured: the lines of the result, and how the user chooses among them."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass

from neon.commands.errors import SettingsError


@dataclass(frozen=True)
class Line:
    """One line of the result.

    Attributes:
        kind: which measurement, a key of `neon.commands.bench.kinds.KINDS`.
        rule: the class of neon.optimizers.
        shape: a key of `SHAPES`, or of a measurement's own networks.
        option: a key of `OPTIONS`.
        device: where the tensors are, as torch names it.
    """

    kind: str
    rule: str
    shape: str
    option: str = "plain"
    device: str = "cpu"

    def __str__(self) -> str:
        clip = "" if self.option == "plain" else f", clip by {self.option}"
        return f"{self.kind}: {self.shape}, {self.rule}{clip}"


@dataclass(frozen=True)
class Settings:
    """How each line is measured: `rounds` instead of a line's own, `compiled` with torch.compile beside the others."""

    rounds: int | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.rounds is not None and (type(self.rounds) is not int or self.rounds < 2):
            raise SettingsError(f"rounds must be a whole number, at least 2; received {self.rounds!r}.")


def choose(option: str, text: str | None, known: Collection[str], default: Collection[str]) -> tuple[str, ...]:
    """Read "Adam,Lion" into names, in the order in which they are known.

    >>> choose("rules", "Lion, Adam", ["Adam", "AdamW", "Lion"], [])
    ('Adam', 'Lion')

    Raises:
        SettingsError: a name is not known, or there is none.
    """
    if text is None:
        return tuple(name for name in known if name in default)
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else f"Write some of {','.join(known)}."
            raise SettingsError(f"{option} has no {name!r}. {hint}")
    return tuple(name for name in known if name in names)
