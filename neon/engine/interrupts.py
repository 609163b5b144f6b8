"""Ctrl-C, held back while a step is half done: kernels have written, and their updates are not counted yet."""

from __future__ import annotations

import _signal  # pyright: ignore[reportMissingImports]
import signal
from types import FrameType, TracebackType
from typing import Any


class Uninterrupted:
    """A context in which no Ctrl-C is raised: it is as soon as the context is left.

    Python raises it in the main thread alone, between any two operations there; in other threads this does nothing.
    What `signal` does beside its C functions would take longer than a step of small tensors may.
    """

    def __enter__(self) -> None:
        self._held: list[FrameType | None] = []
        self._handler: Any = _signal.getsignal(signal.SIGINT)
        if not callable(self._handler):  # the system's, or one that was not set from Python
            self._handler = None
            return
        try:
            _signal.signal(signal.SIGINT, self._hold)
        except ValueError:  # not the main thread
            self._handler = None

    def _hold(self, number: int, frame: FrameType | None) -> None:
        self._held.append(frame)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._handler is not None:
            _signal.signal(signal.SIGINT, self._handler)
            if self._held:
                self._handler(signal.SIGINT, self._held[0])
