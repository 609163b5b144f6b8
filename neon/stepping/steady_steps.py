"""The steady step of parameter groups: when there is one, and what of groups and states it has to ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from neon.engine.backends import forced, place_of_forced
from neon.engine.plan import Plan
from neon.engine.steady import Asked, Steady, steady
from neon.engine.tensors.watch import Likeness
from neon.stepping.in_place import places_taken
from neon.stepping.planned import Planned
from neon.stepping.stepper import Ready


class SteadySteps:
    """Keeps the steady step of the plan that was gone by last; `call` is it while nothing else is under way.

    `call(param_groups, state, *dicts)` says what `neon.engine.steady_source` has for it; these dicts are to be empty.
    """

    call: Callable[..., int] | None = None

    def __init__(self, lock: Any, changed_states: set[int], changed_groups: set[int]) -> None:
        self._asked_first = lock, changed_states, changed_groups
        self._made: Steady | None = None
        self._like: Likeness | None = None  # of the gradients that it was made for, which a plan makes anew for others
        self._plan: Plan | None = None

    def pause(self) -> None:
        """Another way of stepping begins."""
        if self.call is not None:
            self.call = None
            assert self._made is not None
            assert self._plan is not None
            self._made.hold(False)
            self._plan.forget_addresses()

    def resume(self, optimizer: Optimizer, planned: Planned, ready: Ready) -> None:
        """A step has gone by a plan that was there before, for what had been in the step before."""
        plan, grads, reread = ready
        # Where there are other gradients than before, it is worth its making only if that lasts; where there are none,
        # nothing is counted.
        if plan.alike is None or not plan.updated:
            self.forget()
            return
        if plan.alike is not self._like:
            given = [grad for grad in grads if grad is not None]
            self._like, self._plan = plan.alike, plan
            self._made = steady(plan, self._asked(optimizer, planned), given)
        elif reread and self._made is not None:
            self._made.renew()
        if self._made is not None:
            self._made.hold(True)
            self.call = self._made.call

    def renew(self) -> None:
        """Go by the numbers that groups have now."""
        assert self._plan is not None
        assert self._made is not None
        for batch in self._plan.batches:
            batch.read_numbers()
        self._made.renew()

    def forget(self) -> None:
        """Let go of the plan."""
        self.pause()
        self._made, self._plan, self._like = None, None, None

    def _asked(self, optimizer: Optimizer, planned: Planned) -> Asked:
        lock, changed_states, changed_groups = self._asked_first
        lists = [(optimizer.param_groups, planned.groups), *planned.lists(), (place_of_forced(), [forced()])]
        empty = places_taken(), _global_optimizer_pre_hooks, _global_optimizer_post_hooks
        return Asked(lock, lists, planned.states, empty, changed_states, changed_groups, planned.without)
