"""What torch and trainers put around an optimizer's methods: hooks, the profiler, guards, wrappers."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any, cast

import torch

from neon.engine.versions import Method, uncompiled

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


def untraced(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of torch's without its guard against `torch.compile`, which takes a second to import."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        bare = method if "torch._dynamo" in sys.modules else getattr(method, "__wrapped__", method)
        return bare(*args, **kwargs)

    return uncompiled(call)


def on_itself(method: Method) -> Method:
    """A method that works on the optimizer itself, also when called on a wrapper that imitates its class.

    Lightning's does: what is written to it stays with it, and of what is read the class's own values hide the
    optimizer's.
    """

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        while "description" not in vars(self):
            self = self.optimizer
        return method(self, *args, **kwargs)

    return uncompiled(cast(Method, call))
