"""A dict that says when it is written to, so that what has said nothing need not be read again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Watched(dict[str, Any]):
    """A dict that enters itself, by its id, in `changes` whenever it is written to. Copies are plain dicts.

    A value that is itself changed in place (a list, a tensor) goes unnoticed.
    """

    def __init__(self, changes: dict[int, Watched], *values: Any) -> None:
        super().__init__(*values)
        self._changes = changes

    def write_quietly(self, key: str, value: Any) -> None:
        """Write without a word, what no reader goes by."""
        super().__setitem__(key, value)

    def tells(self, changes: dict[int, Watched]) -> bool:
        """Whether it is there that it enters itself."""
        return self._changes is changes

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (dict(self),)


def _telling(method: Callable[..., Any]) -> Callable[..., Any]:
    def tell(self: Watched, *args: Any, **kwargs: Any) -> Any:
        self._changes[id(self)] = self
        return method(self, *args, **kwargs)

    return tell


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(Watched, _name, _telling(getattr(dict, _name)))
