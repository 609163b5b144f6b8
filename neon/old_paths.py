"""Names under other paths than those of their files: the documented framework's, and those in pickles of before."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from neon.not_built import absent

__all__ = ["names_of", "pickled_as"]


def names_of(package: str, module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module: names that it does not have itself are those of its package, or say what to write.

    The package itself may be the module.
    """

    def find(name: str) -> Any:
        found = import_module(package)
        known: Iterable[str] = () if package == module else found.__all__
        if name in known:
            return getattr(found, name)
        stand_in = absent(name, module)
        if stand_in is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return stand_in

    return find


def pickled_as(package: str, **moved: str) -> None:
    """Have modules of a package, in which pickles of earlier versions look for classes, be those that have them now."""
    for name, module in moved.items():
        sys.modules[f"{package}.{name}"] = import_module(module)
