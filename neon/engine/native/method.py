"""A compiled function as a method that Python calls without a detour."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

_FASTCALL = 0x0080  # METH_FASTCALL: function(object itself, object* arguments, ssize count)


class _Definition(ctypes.Structure):
    """PyMethodDef, of CPython's stable interface."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("documentation", ctypes.c_char_p),
    )


@lru_cache
def _definition(name: str, address: int) -> _Definition:
    """Kept for good: what is made of it goes on reading it."""
    return _Definition(name.encode(), address, _FASTCALL, None)


def is_known() -> bool:
    """Whether this interpreter's methods are made so, and one thread at a time is within."""
    alone = getattr(sys, "_is_gil_enabled", lambda: True)()
    return sys.implementation.name == "cpython" and alone


def method(name: str, address: int, context: int, owner: Any) -> Callable[..., Any]:
    """What calls the function at an address with a context; it keeps `owner`, whose memory that is."""
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object, ctypes.py_object)
    return make(ctypes.addressof(_definition(name, address)), context, owner)
