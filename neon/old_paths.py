"""Names under the module paths of the documented framework, where neon has them in another file of the same package."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from neon.not_built import absent

__all__ = ["names_of"]


def names_of(package: str, *modules: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package, for names that are not built; they say what to write.

    Its `modules` that are named get one too, by which they have all names of the package as well.
    """
    for module in modules:
        path = f"{package}.{module}"
        sys.modules[path].__getattr__ = partial(_find, sys.modules[package], path)  # type: ignore[method-assign]
    return partial(_find, None, package)


def _find(package: ModuleType | None, module: str, name: str) -> Any:
    if package is not None and name in package.__all__:
        return getattr(package, name)
    stand_in = absent(name, module)
    if stand_in is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    return stand_in
