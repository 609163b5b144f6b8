"""neon: every update rule written once, as its equation, and run as one pass over memory."""

from importlib import import_module
from typing import Any

__version__ = "0.2.0.dev0"

# What programs of the documented framework import from here, with the module that has it: neon alone imports no torch.
_ELSEWHERE = {"NervanaObject": "neon.backends", "logger": "neon.log"}


def __getattr__(name: str) -> Any:
    if name not in _ELSEWHERE:
        raise AttributeError(f"module 'neon' has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE[name]), name)
