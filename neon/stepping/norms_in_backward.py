"""Norms within the backward pass: large gradients are summed as they arrive, for the step to clip by."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

from torch import Tensor, distributed

from neon.engine.early_sums import EarlySums
from neon.engine.plan import Plan
from neon.engine.versions import uncompiled


@uncompiled
def _arrived(sums: weakref.ref[EarlySums], param: Tensor) -> None:
    """The hook of a parameter. Between processes gradients are still to be averaged, of which autograd is not told."""
    early = sums()
    if early is not None and not (distributed.is_available() and distributed.is_initialized()):
        early.arrived(param)


def _remove(hooks: list[Any]) -> None:
    while hooks:
        hooks.pop().remove()


class Arrivals:
    """The hooks of parameters for the plan that is gone by; they keep nothing alive."""

    def __init__(self) -> None:
        self._hooks: list[Any] = []
        weakref.finalize(self, _remove, self._hooks).atexit = False  # parameters outlive an optimizer

    def follow(self, plan: Plan) -> None:
        """Have the gradients of a plan summed as they arrive from now on."""
        if plan.early is not None:
            return
        self.leave()
        for early in plan.sum_early():
            arrived = partial(_arrived, weakref.ref(early))
            self._hooks += [param.register_post_accumulate_grad_hook(arrived) for param in early.params]

    def leave(self) -> None:
        """Take the hooks away."""
        _remove(self._hooks)
