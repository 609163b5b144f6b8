"""A step: take the plan or make it, ask whether it holds, run it, keep what came of it. One way for all holders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from neon.collections_held import collections_held
from neon.engine.interrupts import Uninterrupted
from neon.engine.plan import Plan


class Holder(Protocol):
    """What holds tensors that are updated together: a list of layers, parameter groups, or one parameter alone."""

    def news(self, plan: Plan) -> bool | None:
        """Whether numbers may have changed since the plan's last step; None where it is not for what is held now."""
        ...

    def gradients(self) -> list[Tensor | None]:
        """The gradients of the planned parameters, in the plan's order."""
        ...

    def make_plan(self) -> Plan | None:
        """A new plan, with states that are not yet put in place; None where the step is to be left out."""
        ...

    def put_in_place(self, plan: Plan) -> None:
        """Put the states of a new plan where they belong: nothing was refused."""
        ...

    def updated(self, plan: Plan) -> None:
        """What follows an update: schedules count on, gradients are let go."""
        ...


# A plan that holds, the gradients that it is to take, and whether numbers may have changed.
Ready = tuple[Plan, list[Tensor | None], bool]


class Stepper:
    """Makes the steps of one optimizer. Nothing is written before all that can be refused has been looked at."""

    def __init__(self) -> None:
        self.uninterrupted = Uninterrupted()  # Ctrl-C waits within it

    def ready(self, holder: Holder, plan: Plan | None) -> Ready | None:
        """The plan of before, where it still holds, or a new one; None where the step is to be left out."""
        reread = None if plan is None else holder.news(plan)
        if plan is not None and reread is not None:
            grads = holder.gradients()
            if plan.holds(grads):
                return plan, grads, reread
        with collections_held():
            plan = holder.make_plan()
        return None if plan is None else (plan, holder.gradients(), True)

    def run(
        self,
        holder: Holder,
        ready: Ready,
        elsewhere: Mapping[int, float] | None = None,
        inputs: Mapping[str, Any] | None = None,
        found: Tensor | None = None,
        *,
        look: bool = False,
    ) -> None:
        """Update everything once; from the first kernel on Ctrl-C waits. The arguments are those of `Plan.step`."""
        plan, grads, reread = ready
        with self.uninterrupted:
            plan.step(grads, elsewhere, reread, inputs, found, look=look)
            holder.put_in_place(plan)
            holder.updated(plan)

    def rehearse(self, holder: Holder, plan: Plan) -> None:
        """Keep the states of a new plan, and change nothing else."""
        with self.uninterrupted:
            holder.put_in_place(plan)
            plan.rehearse()
