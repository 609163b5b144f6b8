"""Names under the module paths of the documented framework, where neon has them in another file of the same package."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any


def names_of(package: str, module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module: names that it does not have itself are those of its package."""

    def find(name: str) -> Any:
        found = import_module(package)
        if name in found.__all__:
            return getattr(found, name)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return find
