"""The device without the host, and what a graph of it would hold; parameters and gradients for its steps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import pytest
import torch
from state_tensors import new, tensors_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from neon.engine.backends import capture, triton_launch
from neon.engine.backends.resident import DeviceCounts
from neon.optimizers import Optimizer
from neon.optimizers.functions import norm


class Alone(TorchDispatchMode):
    """The device without the host: nobody reads a number. What the interpreter does is the device's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._patch, self._launch, self._read = monkeypatch.setattr, triton_launch.Launch.__call__, DeviceCounts.read

    def launched(self, launch: triton_launch.Launch) -> None:
        with _disable_current_modes():
            self._launch(launch)

    def __enter__(self) -> Self:
        self._patch(triton_launch.Launch, "__call__", lambda launch: self.launched(launch))
        self._patch(DeviceCounts, "read", lambda counts: pytest.fail("the host reads counts"))
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch(triton_launch.Launch, "__call__", self._launch)
        self._patch(DeviceCounts, "read", self._read)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function is not torch.ops.aten._local_scalar_dense.default, "the host reads a number"
        return self.run(function, partial(function, *args, **kwargs or {}))

    def run(self, function: Any, operation: Callable[[], Any]) -> Any:
        return operation()


class Graph(Alone):
    """What a graph of the device would hold: launches and writes of a step, to be done again without the host."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(monkeypatch)
        self._done: list[Callable[[], Any]] = []

    def launched(self, launch: triton_launch.Launch) -> None:
        self._done.append(partial(self._launch, launch))
        super().launched(launch)

    def __enter__(self) -> Self:
        self._patch(capture, "capturing", lambda device: True)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._patch(capture, "capturing", lambda device: False)

    def run(self, function: Any, operation: Callable[[], Any]) -> Any:
        result = operation()
        if function._schema.is_mutable:
            self._done.append(operation)
        elif isinstance(result, Tensor) and not function.is_view:  # a replay computes it in its place
            self._done.append(lambda: result.copy_(operation()))
        return result

    def replay(self) -> None:
        for operation in self._done:
            operation()


def everything(opt: Any) -> list[Tensor]:
    """A copy of all parameters and states."""
    params = [p for group in opt.param_groups for p in group["params"]]
    states = [t for p in params for t in tensors_of(opt.state.get(p, {}))]
    return [t.detach().clone() for t in (*params, *states)]


def give(params: list[Tensor], seed: int, *, without: tuple[int, ...] = ()) -> None:
    for place, (p, g) in enumerate(zip(params, new(*map(len, params), seed=seed), strict=True)):
        p.grad = None if place in without else g.detach()


class OfNorms(Optimizer):
    @staticmethod
    def rule(w: Any, g: Any, *, lr: float = 0.1) -> Any:
        for _ in range(5):
            g = g / (norm(g) + 1.0)
        return w - lr * g
