"""What torch does around a step, done once: its hooks, its profiler, its loss scales."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

_within = threading.local()


def observed(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step with torch's hooks and profiler around it, unless they are around the step that calls it.

    torch puts them around the step of each class that has one of its own; such a step calls that of its base.
    """
    around = torch.optim.Optimizer.profile_hook_step(step)

    @functools.wraps(step)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        running: set[int] = vars(_within).setdefault("running", set())
        if id(self) in running:
            return step(self, *args, **kwargs)
        running.add(id(self))
        try:
            return around(self, *args, **kwargs)
        finally:
            running.discard(id(self))

    return call


class UnlessWrapped:
    """An attribute that is True, but False where a wrapper reads it for one of the same name of its own."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._askers = ("__getattr__", "__getattribute__", name)

    def __get__(self, instance: Any, owner: type | None = None) -> bool:
        return sys._getframe(1).f_code.co_name not in self._askers
