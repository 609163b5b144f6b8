"""One step over parameter groups: what an attached optimizer does, with a plan that is kept while it holds."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from neon.engine.backends.capture import check_not_captured
from neon.engine.plan import NotFiniteError, Plan
from neon.engine.tensors.watch import same_objects
from neon.stepping.exact_steps import write_down
from neon.stepping.group_rules import GroupRules, write_rate
from neon.stepping.on_device import OnDevice, tells_all
from neon.stepping.planned import Planned
from neon.stepping.scaler import Scaler, scaler_of
from neon.stepping.stepper import Stepper
from neon.stepping.watched import Watched


class LeftOut(NamedTuple):
    """A step that changed nothing; `name` is that of the first parameter whose gradient is not finite, where known."""

    name: str | None = None


class GroupStepper:
    """The steps of one attached optimizer, of which it is given the groups and states: it holds nothing that holds it.

    Whatever may differ from the last step is either asked for (gradients, where tensors are, which groups
    there are) or says so itself (groups and states, which are `Watched`): 500 groups cost what one costs.
    """

    def __init__(self, rules: GroupRules) -> None:
        self._rules = rules
        self._stepper = Stepper()
        self._plan: Plan | None = None
        self._planned: Planned | None = None
        self._counted: Plan | None = None  # the plan that has counted last, even if it is not gone by any more
        self._lock = threading.Lock()
        self._changed_groups: set[int] = set()
        self._changed_states: set[int] = set()
        self._unscales = False
        self._on_device = OnDevice()

    def watch(self, optimizer: Optimizer) -> None:
        """Have the groups and states of the optimizer tell when they are written to; the plan is made anew."""
        self._plan = None
        self.write_counts(optimizer)
        optimizer.param_groups[:] = [Watched.of(group, self._changed_groups) for group in optimizer.param_groups]
        empty = partial(Watched, changes=self._changed_states)
        optimizer.state = states = Watched.of(optimizer.state, self._changed_states, empty)
        for param, state in states.items():
            if isinstance(param, Tensor) and isinstance(state, dict):
                states.write_quietly(param, Watched.of(state, self._changed_states))
        self._sort(optimizer)

    def write_counts(self, optimizer: Optimizer) -> None:
        """Have the groups say the counts of updates that `step`, a float32, does not hold."""
        write_down(optimizer.param_groups, self._exact_counts())

    def _exact_counts(self) -> dict[int, float]:
        """The counts of updates by the ids of parameters."""
        if self._counted is None or self._planned is None:
            return {}
        return dict(zip(map(id, self._planned.params), self._counted.counts.read().tolist(), strict=True))

    def added(self, optimizer: Optimizer) -> None:
        """Take note of a group that is new; the next step looks for such itself."""

    def release(self) -> None:
        """Let go of the parameters, which another stepper takes over."""

    def close(self, optimizer: Optimizer) -> None:
        """Finish what was begun; here a step is never left half done."""

    def _sort(self, optimizer: Optimizer) -> None:
        """Find the groups to look at in every step: with a schedule, or with values that may change in silence."""
        groups = optimizer.param_groups
        self._scheduled: list[Any] = [group for group in groups if "updates" in group]
        self._silent = {id(group) for group in groups if not tells_all(group)}

    @property
    def skipped(self) -> int:
        """How many steps the device has left out, for which it is waited for."""
        return self._on_device.skipped

    def step(self, optimizer: Optimizer) -> LeftOut | None:
        """Update every parameter that has a gradient, once; what is refused leaves all of them as they were."""
        with self._lock:
            scaler = scaler_of(optimizer)
            on_device = scaler.found is not None and self._is_decided_there(scaler)
            if self._plan is None or (on_device and self._plan.resident is None):
                on_device, self._plan = False, None  # a new plan makes states: the host has to know whether to
            if scaler.found is not None and not on_device and scaler.stops():
                return LeftOut()
            # Taken away until all is done: after an error nothing is believed of what was known before.
            plan, self._plan = self._plan, None
            unscales = scaler.scale is not None
            groups = [] if self._planned is None else self._planned.groups
            if self._unscales != unscales or not same_objects(optimizer.param_groups, groups):
                plan, self._unscales = None, unscales
            holder = _Groups(self, optimizer, scaler, on_device)
            if plan is None:
                self.prepare(optimizer)
                if may_be_rehearsal(optimizer):
                    plan = holder.make_plan()
                    if plan is not None and not plan.anywhere(any(map(is_not_zero, holder.gradients()))):
                        self._stepper.rehearse(holder, plan)
                        self._plan = plan
                        return None
            return self._step(holder, plan, scaler)

    def _is_decided_there(self, scaler: Scaler) -> bool:
        """Whether the device can leave the step out on its own: the host goes by nothing that depends on it."""
        return self._on_device.is_here(scaler.found) and not (self._scheduled or self._rules.skip_nonfinite)

    def _step(self, holder: _Groups, plan: Plan | None, scaler: Scaler) -> LeftOut | None:
        """One step with the plan, if it still holds, or another, which is kept for the next."""
        rates = [float(group["lr"]) for group in self._scheduled] if self._rules.skip_nonfinite else []
        for group in self._scheduled:
            self._rules.apply_schedule(group)
        ready = self._stepper.ready(holder, plan)
        if ready is None:
            return LeftOut()
        inputs = None if scaler.scale is None else scaler.inputs(on_device=holder.on_device)
        try:
            self._stepper.run(holder, ready, None, inputs, scaler.found if holder.on_device else None)
        except NotFiniteError as error:
            for group, lr in zip(self._scheduled, rates, strict=False):
                write_rate(group, lr)
            self._plan = ready.plan if self._planned is not None and self._planned.in_place else None
            return LeftOut(error.name)
        if self._rules.capturable:
            self._on_device.keep_captured(ready.plan)
        self._plan = ready.plan
        return None

    def prepare(self, optimizer: Optimizer) -> None:
        """Watch anew, for which counts are read from their device."""
        check_not_captured({param.device for group in optimizer.param_groups for param in group["params"]})
        self.watch(optimizer)


class _Groups:
    """The holder of one step over the groups of an optimizer."""

    def __init__(self, stepper: GroupStepper, optimizer: Optimizer, scaler: Scaler, on_device: bool) -> None:
        self._of, self._optimizer, self._scaler, self.on_device = stepper, optimizer, scaler, on_device

    def news(self, plan: Plan) -> bool | None:
        of, planned = self._of, self._of._planned
        assert planned is not None
        if not planned.has_states_of(self._optimizer):
            return None
        if of._changed_states:
            of._changed_states.clear()
            if not planned.has_states_in_place():
                return None
        changed = {*of._silent}
        while of._changed_groups:
            changed.add(of._changed_groups.pop())
        if changed:
            if not planned.has_groups(plan, changed):
                return None
            of._sort(self._optimizer)
        return bool(changed) if planned.has_parameters(plan) else None

    def gradients(self) -> list[Any]:
        planned = self._of._planned
        assert planned is not None
        return planned.gradients()

    def make_plan(self) -> Plan | None:
        if self.on_device and self._scaler.stops():
            return None
        of, rules = self._of, self._of._rules
        of.prepare(self._optimizer)
        of._changed_groups.clear()
        of._changed_states.clear()
        planned = Planned(self._optimizer, rules, unscale=of._unscales)
        of._planned, of._counted = planned, None
        found = None if of._scheduled or rules.skip_nonfinite else self._scaler.found
        of._on_device.place(planned.items, capturable=rules.capturable, found=found)
        return Plan(
            planned.items,
            planned.gradients(),
            planned.settings,
            rules.shared_sums(self._optimizer.param_groups),
            resident=of._on_device.resident,
            capturable=rules.capturable,
        )

    def put_in_place(self, plan: Plan) -> None:
        of, planned = self._of, self._of._planned
        assert planned is not None
        if not planned.in_place:
            planned.put_in_place(self._optimizer, plan, of._changed_states)
            of._counted = plan

    def updated(self, plan: Plan) -> None:
        for group in self._of._scheduled:
            group.write_quietly("updates", group["updates"] + 1)


def may_be_rehearsal(optimizer: Optimizer) -> bool:
    """Whether all rates are zero before the first step.

    With zero gradients too, that is how torch.distributed.checkpoint has states made that it can load into:
    then states are made, and nothing else happens, where weights could be clipped, rounded or decayed.
    """
    return not optimizer.state and all(group.get("lr", 0.0) == 0.0 for group in optimizer.param_groups)


def is_not_zero(grad: Tensor | None) -> bool:
    """Whether there is a gradient that is not zero throughout."""
    return grad is not None and bool(torch.count_nonzero(grad))
