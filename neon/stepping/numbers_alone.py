"""Whether a group differs from what it was in plain numbers alone, as in a rate that a scheduler writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from neon.assignment.description import Description
from neon.engine.program.numbers import check_values
from neon.engine.program.options import GROUPED
from neon.engine.program.trace import fixed
from neon.engine.settings import Settings


class NumbersAlone:
    """The values of a group when all of them were looked at last."""

    def __init__(self, leaf: Description, settings: Settings) -> None:
        self._checks, self._values = leaf._checks or {}, dict(settings.values)
        noted = _Noted(self._values)
        leaf.rule_of(noted)
        leaf.select_view(noted)
        numbers = {name for program in settings.programs for name, _ in program.places}
        apart = self._checks and not settings.storage.in_blocks  # of which a number may turn a state negative
        self._free = numbers - noted.read - {*GROUPED, *settings.program.numbers_kept} if apart else set[str]()

    def are_new(self, values: Mapping[str, Any]) -> bool:
        """Whether nothing else is; what no rule can run with is refused by name."""
        known, new = self._values, []
        if len(known) != len(values):
            return False
        for name, value in values.items():
            if value is not known.get(name, _NOTHING):
                if name not in self._free or not _are_floats(value) or fixed(value) != fixed(known[name]):
                    return False
                new.append((name, value))
        check_values(dict(new), self._checks)
        known.update(new)
        return True


_NOTHING = object()


def _are_floats(value: Any) -> bool:
    """Whether a value is a float, or a tuple of some: a tensor, or an array, in it could be changed in silence."""
    return all(type(item) is float for item in (value if type(value) is tuple else (value,)))


class _Noted(Mapping[str, Any]):
    """Values that note which of them are read."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.read: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        self.read.update(self._values)
        return iter(self._values)

    def __len__(self) -> int:
        self.read.update(self._values)
        return len(self._values)
