"""A dict that says when it is written to, so that what has said nothing need not be read again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


class Watched(defaultdict[Any, Any]):
    """A dict that puts its id into `changes` once it has been written to. Copies are plain dicts.

    Otherwise a defaultdict. A value that is itself changed in place (a list, a tensor) goes unnoticed.
    """

    def __init__(self, *args: Any, changes: set[int] | None = None) -> None:
        super().__init__(*args)
        self._changes = set() if changes is None else changes

    @classmethod
    def of(cls, values: Mapping[Any, Any], changes: set[int], factory: Callable[[], Any] | None = None) -> Watched:
        """The same dict where it tells these `changes` already, or a new one that does."""
        if isinstance(values, cls) and values._changes is changes:
            return values
        return cls(factory, values, changes=changes)

    write_quietly = dict.__setitem__  # without a word

    def __repr__(self) -> str:
        return repr(dict(self))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (defaultdict, (dict, dict(self))) if self.default_factory else (dict, (dict(self),))


def unwatched(values: Mapping[Any, Any]) -> dict[Any, Any]:
    """The dict, and the dicts in it, as plain ones, of whose tensors a checkpoint writes no more than they show."""
    return {key: unwatched(value) if isinstance(value, Mapping) else _alone(value) for key, value in values.items()}


def _alone(value: Any) -> Any:
    """A number that lies among others, as a count on a device does, in memory of its own; all else as it is."""
    among = isinstance(value, Tensor) and value.dim() == 0 and value._base is not None
    return value.clone() if among else value


def _telling(method: Callable[..., Any]) -> Callable[..., Any]:
    def tell(self: Watched, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        finally:
            self._changes.add(id(self))

    return tell


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(Watched, _name, _telling(getattr(dict, _name)))
