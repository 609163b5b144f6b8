"""One step over parameter groups: what an attached optimizer does, with a plan that is kept while it holds."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from neon.collections_held import collections_held
from neon.engine.backends.capture import check_not_captured
from neon.engine.plan import NotFiniteError, Plan
from neon.engine.refusals.combinations import check_alike
from neon.engine.tensors.watch import same_objects
from neon.stepping.agreement import Agreement
from neon.stepping.exact_steps import write_down
from neon.stepping.group_rules import GroupRules, write_rate
from neon.stepping.kept_numbers import new_numbers
from neon.stepping.looking import Looking
from neon.stepping.norms_in_backward import Arrivals
from neon.stepping.on_device import OnDevice, tells_all
from neon.stepping.planned import Planned
from neon.stepping.scaler import Scaler, scaler_of
from neon.stepping.steady_steps import SteadySteps
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
        self._planned: Planned  # once there has been a plan
        self._counted: Plan | None = None  # the plan that has counted last, even if it is not gone by any more
        self._lock = threading.Lock()
        self._changed_groups: set[int] = set()
        self._changed_states: set[int] = set()
        self._unscales = self._begun = False
        self.looking: Looking | None = None
        self.steady = SteadySteps(self._lock, self._changed_states, self._changed_groups)
        self._on_device = OnDevice()
        self._arrivals = Arrivals()
        # Within a step: whose it is, what a scaler says of it, and whether the device is to find out.
        self._optimizer: Any = None
        self._scaler, self._decides = Scaler(), False

    def watch(self, optimizer: Optimizer) -> None:
        """Have the groups and states of the optimizer tell when they are written to; the plan is made anew."""
        self._plan = None
        self.steady.forget()
        self._arrivals.leave()
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
        if self._counted is None:
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

    @property
    def totals(self) -> Mapping[Hashable, float]:
        """The sums of the last step, by what they are of; those that a device has kept are waited for."""
        return {} if self._plan is None else self._plan.totals

    def step(self, optimizer: Optimizer) -> LeftOut | None:
        """Update every parameter that has a gradient, once; what is refused leaves all of them as they were."""
        with self._lock:
            self.steady.pause()
            scaler = scaler_of(optimizer)
            decides = scaler.found is not None and self._is_decided_there(scaler)
            if self._plan is None or (decides and self._plan.resident is None):
                decides, self._plan = False, None  # a new plan makes states: the host has to know whether to
            if scaler.found is not None and not decides and scaler.stops():
                return LeftOut()
            # Taken away until all is done: after an error nothing is believed of what was known before.
            plan, self._plan = self._plan, None
            self._optimizer, self._scaler, self._decides = optimizer, scaler, decides
            try:
                unscales = scaler.scale is not None
                groups = () if plan is None else self._planned.groups
                if self._unscales != unscales or not same_objects(optimizer.param_groups, groups):
                    plan, self._unscales = None, unscales
                if plan is None:
                    self._agreement = Agreement(optimizer.param_groups, self._rules)
                self._agreement.decide()
                if plan is None and self._is_rehearsed(optimizer):
                    return None
                self._begun = True
                return self._run(plan, scaler)
            finally:
                self._optimizer = None  # nothing that holds the stepper is held

    def _is_rehearsed(self, optimizer: Optimizer) -> bool:
        """Whether states were to be made, and nothing else; a partition's processes, some without states, agree."""
        self.prepare(optimizer)
        had_states = bool(optimizer.state)
        begun = had_states if self._rules.partition is None else self._begun  # which all know alike
        if begun or not has_no_rate(optimizer):
            return False
        plan = self.make_plan()
        if plan is None or plan.anywhere(had_states or any(map(is_not_zero, self.gradients()))):
            return False
        self._stepper.rehearse(self, plan)
        self._plan = plan
        return True

    def _is_decided_there(self, scaler: Scaler) -> bool:
        """Whether the device can leave the step out on its own: the host goes by nothing that depends on it."""
        return self._on_device.is_here(scaler.found) and not (self._scheduled or self._rules.skip_nonfinite)

    def _run(self, plan: Plan | None, scaler: Scaler) -> LeftOut | None:
        """One step with the plan, if it still holds, or another, which is kept for the next."""
        rates = [float(group["lr"]) for group in self._scheduled] if self._rules.skip_nonfinite else []
        self._rules.apply_schedule(*self._scheduled)
        ready = self._stepper.ready(self, plan)
        if ready is None:
            return LeftOut()
        steady = ready[0] is plan
        plan = ready[0]
        if plan.early:
            self._arrivals.ask(plan, scaled=scaler.found is not None)
        inputs = None if scaler.scale is None else scaler.inputs(on_device=self._decides)
        looking, look = self.looking, False
        if looking is not None:
            if not steady:
                looking.follow(plan.counts.read())
            look = looking.is_due
        try:
            self._stepper.run(self, ready, None, inputs, scaler.found if self._decides else None, look=look)
        except NotFiniteError as error:
            for group, lr in zip(self._scheduled, rates, strict=False):
                write_rate(group, lr)
            self._plan = plan if self._planned.in_place else None
            return LeftOut(error.name)
        # Where processes look together, they count alike, whichever gradients there are here.
        if looking is not None and (plan.updated or self._planned.sharded):
            looking.made([plan.observation] if look and plan.observation is not None else [])
        if self._rules.capturable:
            self._on_device.keep_captured(plan)
        if self._rules.norms_in_backward:
            self._arrivals.follow(plan)
        self._plan = plan
        if steady and not (
            self._scheduled or self._silent or self._unscales or self._agreement or self._planned.sharded
        ):
            self.steady.resume(self._optimizer, self._planned, ready)
        return None

    def renew(self) -> bool:
        """Have the steady step go by what was written to groups; whether that leaves it one."""
        with self._lock:
            plan, changed = self._plan, {*self._changed_groups}
            if self.steady.call is None or plan is None or not self._planned.has_new_numbers_alone(plan, changed):
                return False
            self._changed_groups -= changed
            self.steady.renew()
            return True

    def prepare(self, optimizer: Optimizer) -> None:
        """Watch anew, for which counts are read from their device."""
        check_not_captured({param.device for group in optimizer.param_groups for param in group["params"]})
        self.watch(optimizer)

    # -- as the holder of a step -------------------------------------------------------------------

    def news(self, plan: Plan) -> bool | None:
        planned, optimizer = self._planned, self._optimizer
        if optimizer.state is not planned.states:
            return None
        if self._changed_states:
            self._changed_states.clear()
            if not planned.has_states_in_place():
                return None
        changed = {*self._silent}
        while self._changed_groups:
            changed.add(self._changed_groups.pop())
        if changed and (self._silent or not planned.has_new_numbers_alone(plan, changed)):
            if not planned.has_groups(plan, changed):
                return None
            if any(settings.program.numbers_kept for settings in plan.settings):
                self._on_device.put_numbers(planned.groups, self._rules)
                check_alike(plan.settings)
            self._sort(optimizer)
        return bool(changed) if planned.has_parameters(plan) else None

    def gradients(self) -> list[Any]:
        return self._planned.gradients()

    def make_plan(self) -> Plan | None:
        if self._decides and self._scaler.stops():
            return None
        rules, optimizer = self._rules, self._optimizer
        self.prepare(optimizer)
        self._changed_groups.clear()
        self._changed_states.clear()
        planned = Planned(optimizer, rules, unscale=self._unscales)
        self._planned, self._counted = planned, None
        found = None if self._scheduled or rules.skip_nonfinite else self._scaler.found
        self._on_device.place(planned.items, capturable=rules.capturable, found=found)
        self._on_device.put_numbers(planned.groups, rules)
        check_alike(planned.settings)
        return Plan(
            planned.items,
            planned.gradients(),
            planned.settings,
            rules.shared_sums(optimizer.param_groups),
            resident=self._on_device.resident,
            capturable=rules.capturable,
        )

    def put_in_place(self, plan: Plan) -> None:
        if not self._planned.in_place:
            with collections_held():
                self._planned.put_in_place(self._optimizer, plan, self._changed_states)
            self._counted = plan

    def updated(self, plan: Plan) -> None:
        for group in self._scheduled:
            group.write_quietly("updates", group["updates"] + 1)
        if plan.new_numbers or self._rules.partition is not None:
            found, groups = self._planned.by_group(plan.new_numbers), self._planned.groups
            for group, numbers in new_numbers(found, groups, self._rules):
                for name, value in numbers.items():
                    group.write_quietly(name, value)


def has_no_rate(optimizer: Optimizer) -> bool:
    """Whether all rates are zero.

    With zero gradients too, before the first step, that is how torch.distributed.checkpoint has states made that it
    can load into: then states are made, and nothing else happens, where weights could be clipped, rounded or decayed.
    """
    return all(group.get("lr", 0.0) == 0.0 for group in optimizer.param_groups)


def is_not_zero(grad: Tensor | None) -> bool:
    """Whether there is a gradient that is not zero throughout."""
    return grad is not None and bool(torch.count_nonzero(grad))
