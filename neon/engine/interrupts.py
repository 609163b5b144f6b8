"""Ctrl-C, held back while a step is half done: kernels have written, and their updates are not counted yet."""

from __future__ import annotations

import _signal  # pyright: ignore[reportMissingImports]
import signal
from types import FrameType
from typing import Any

# What the module `signal` does beside these would take longer than a step of small tensors may.
_CTRL_C, _get, _set = int(signal.SIGINT), _signal.getsignal, _signal.signal


class Uninterrupted:
    """A context in which no Ctrl-C is raised: it is as soon as the context is left. One at a time may be within.

    Python raises it in the main thread alone, between any two operations there; in other threads this does nothing.
    """

    __slots__ = ("_handler", "_held")

    def __enter__(self) -> None:
        self._held: FrameType | None = None
        self._handler: Any = _get(_CTRL_C)
        if callable(self._handler):
            try:
                _set(_CTRL_C, self._hold)
            except ValueError:  # not the main thread
                self._handler = None
        else:  # the system's, or one that was not set from Python
            self._handler = None

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._held = frame

    def __exit__(self, *error: object) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            _set(_CTRL_C, handler)
            if self._held is not None:
                frame, self._held = self._held, None
                handler(_CTRL_C, frame)
