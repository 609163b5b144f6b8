"""Finds what the user names as ``module:name``."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
import traceback
from pathlib import Path

from neon.commands.errors import UnknownReferenceError

MAX_LENGTH = 300
REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def resolve(reference: str) -> object:
    """Import the module and return what it calls by that name.

    The current directory is searched first, as ``python -m`` does.

    Raises:
        UnknownReferenceError: it has another form, the import fails, or the name is not there.
    """
    module_name, _, name = reference.partition(":")
    if not REFERENCE.fullmatch(reference):
        raise UnknownReferenceError(
            f"expected module:name, such as mypackage.myfile:make; received {reference!r}.{_path_hint(module_name)}"
        )
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except SystemExit as error:  # a program that reads its arguments, or trains, as it is imported
        raise UnknownReferenceError(
            f"{reference}: {module_name!r} exits when it is imported. Have it do so under "
            "`if __name__ == '__main__':` alone."
        ) from error
    except Exception as error:
        raise UnknownReferenceError(
            f"{reference}: cannot import {module_name!r}: {one_line(error)}.{_path_hint(module_name)}"
        ) from error
    if not hasattr(module, name):
        close = difflib.get_close_matches(name, [key for key in vars(module) if not key.startswith("_")], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UnknownReferenceError(f"{reference}: module {module_name!r} has no {name!r}.{hint}")
    return getattr(module, name)


def one_line(error: BaseException) -> str:
    """An exception's type and message on one line, without a full stop at its end."""
    text = " ".join(traceback.format_exception_only(error)[-1].split())
    return (text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 1] + "…").rstrip(".")


def _path_hint(module_name: str) -> str:
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        return f" A module is written with dots and without .py: {dotted}."
    return ""
