"""Norms within the backward pass: large gradients are summed as they arrive, for the step to clip by."""

from __future__ import annotations

import weakref
from functools import partial
from typing import Any

from torch import Tensor, distributed

from neon.engine.early_sums import Sum
from neon.engine.plan import Plan
from neon.engine.versions import uncompiled


@uncompiled
def _arrived(known: weakref.ref[Sum], param: Tensor) -> None:
    """The hook of a parameter."""
    if (here := known()) is not None:
        here.arrived(param)


def _are_averaged() -> bool:
    """Whether gradients may be averaged over processes after they have arrived."""
    return distributed.is_available() and distributed.is_initialized()


@uncompiled
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
        if plan.early is not None or _are_averaged():
            return
        self.leave()
        for early in plan.sum_early():
            for known in early.sums:
                arrived = partial(_arrived, weakref.ref(known))
                self._hooks.append(known.param.register_post_accumulate_grad_hook(arrived))

    def ask(self, plan: Plan, *, scaled: bool) -> None:
        """Before a step: have nothing believed of gradients that others change and do not tell autograd.

        A scaler divides them, and processes average them.
        """
        if averaged := _are_averaged():
            self.leave()
        for early in (plan.early or ()) if scaled or averaged else ():
            early.forget()

    def leave(self) -> None:
        """Take the hooks away."""
        _remove(self._hooks)
