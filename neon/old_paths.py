"""Names under the module paths of the documented framework, where neon has them in another file of the same package."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any

from neon.not_built import absent

__all__ = ["names_of"]


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
