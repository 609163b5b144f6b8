"""One step over parameter groups: what an attached optimizer does, with a plan that is kept while it holds."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neon.attached.checkpoint import named_parameters
from neon.engine.backends import serving
from neon.engine.backends.capture import check_not_captured
from neon.engine.backends.resident import Resident
from neon.engine.interrupts import Uninterrupted
from neon.engine.plan import NotFiniteError, Plan
from neon.engine.settings import Item
from neon.engine.tensors.watch import same_objects
from neon.messages import shortened
from neon.stepping.exact_steps import exact_steps, keys_of, write_down
from neon.stepping.group_states import make_item, put_states, still_has
from neon.stepping.overrides import KEY, Rows
from neon.stepping.scaler import Scaler, scaler_of
from neon.stepping.sharding import Reaches, is_abstract, is_sharded, local, local_gradients
from neon.stepping.watched import Watched

if TYPE_CHECKING:
    from neon.attached.attached_optimizer import AttachedOptimizer

# What a group holds besides values.
_NOT_VALUES = ("params", "param_names")
Members = list[tuple[Item, Any]]
_IMMUTABLE = (int, float, bool, str, type(None))


class GroupStepper:
    """The steps of one attached optimizer, which it is given each time: it holds on to nothing that holds it.

    Whatever may differ from the last step is either asked for (gradients, where tensors are, which groups
    there are) or says so itself (groups and states, which are `Watched`): 500 groups cost what one costs.
    """

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._counted: Plan | None = None  # the plan that has counted last, even if it is not gone by any more
        self._lock = threading.Lock()
        self._uninterrupted = Uninterrupted()
        self._changed_groups: set[int] = set()
        self._changed_states: set[int] = set()
        self._groups: list[dict[str, Any]] = []
        self._params: list[Any] = []
        self._waiting: tuple[Members, Members] | None = None  # whose states are not in place: of a plan, and abstract
        self._unscales = False
        self._resident: Resident | None = None
        self._device: torch.device | None = None  # the one that has all parameters, where Triton serves it
        self._captured: list[Any] = []  # what graphs go by when they are replayed, whatever the plan is by then

    def watch(self, optimizer: AttachedOptimizer) -> None:
        """Have the groups and states of the optimizer tell when they are written to; the plan is made anew."""
        self._plan = None
        self.settle(optimizer)
        optimizer.param_groups[:] = [Watched.of(group, self._changed_groups) for group in optimizer.param_groups]
        empty = partial(Watched, changes=self._changed_states)
        optimizer.state = states = Watched.of(optimizer.state, self._changed_states, empty)
        for param, state in states.items():
            if isinstance(param, Tensor) and isinstance(state, dict):
                states.write_quietly(param, Watched.of(state, self._changed_states))
        self._sort(optimizer)

    def settle(self, optimizer: AttachedOptimizer) -> None:
        """Have the groups say the counts of updates that `step`, a float32, does not hold."""
        write_down(optimizer.param_groups, self._exact_counts())

    def _exact_counts(self) -> dict[int, float]:
        """The counts of updates by the ids of parameters."""
        if self._counted is None:
            return {}
        return dict(zip(map(id, self._params), self._counted.counts.read().tolist(), strict=True))

    def added(self, optimizer: AttachedOptimizer) -> None:
        """Take note of a group that is new; the next step looks for such itself."""

    def release(self) -> None:
        """Let go of the parameters, which another stepper takes over."""

    def close(self, optimizer: AttachedOptimizer) -> None:
        """Finish what was begun; here a step is never left half done."""

    def _sort(self, optimizer: AttachedOptimizer) -> None:
        """Find the groups to look at in every step: with a schedule, or with values that may change in silence."""
        groups = optimizer.param_groups
        self._scheduled: list[Any] = [group for group in groups if "updates" in group]
        self._silent = {id(group) for group in groups if not _tells_all(group)}

    def skipped(self) -> int:
        """How many steps the device has left out, for which it is waited for."""
        return 0 if self._resident is None else int(self._resident.skipped.item())

    def step(self, optimizer: AttachedOptimizer) -> None:
        """Update every parameter that has a gradient, once; what is refused leaves all of them as they were."""
        with self._lock:
            scaler = scaler_of(optimizer)
            there = scaler.found is not None and self._decides(optimizer, scaler.found)
            if self._plan is None or (there and self._plan.resident is None):
                there, self._plan = False, None  # a new plan makes states: the host has to know whether to
            if scaler.found is not None and not there and scaler.stops():
                optimizer.skip(None)
                return
            # Taken away until all is done: after an error nothing is believed of what was known before.
            plan, self._plan = self._plan, None
            unscales = scaler.scale is not None
            if self._unscales != unscales or not same_objects(optimizer.param_groups, self._groups):
                plan, self._unscales = None, unscales
            if plan is None:
                self._prepare(optimizer)
                if may_be_rehearsal(optimizer):
                    plan = self._make_plan(optimizer, scaler)
                    if not plan.anywhere(any(map(is_not_zero, self._gradients()))):
                        self._put_in_place(optimizer, plan)
                        self._plan = plan
                        return
            self._plan = self._step(optimizer, plan, scaler, there)

    def _decides(self, optimizer: AttachedOptimizer, found: Any) -> bool:
        """Whether the device can leave the step out on its own: the host goes by nothing that depends on it."""
        here = isinstance(found, Tensor) and found.device == self._device
        return here and not (self._scheduled or optimizer.skip_nonfinite)

    def _step(self, optimizer: AttachedOptimizer, plan: Plan | None, scaler: Scaler, there: bool) -> Plan | None:
        """One step with the plan, if it still holds, or another; returned is the one for the next step, if any.

        `there`: the device is to find out whether the step is left out.
        """
        rates = [float(group["lr"]) for group in self._scheduled] if optimizer.skip_nonfinite else []
        for group in self._scheduled:
            optimizer.apply_schedule(group)
        brought = None if scaler.scale is None else scaler.brought(there)
        grads: list[Any] = []
        reread = None
        if plan is not None and (reread := self._news(optimizer, plan)) is not None:
            grads = self._gradients()
            if self._unplanned_gradient() or not plan.holds(grads):
                reread = None
        if plan is None or reread is None:
            if there and scaler.stops():
                optimizer.skip(None)
                return None
            plan, reread = self._make_plan(optimizer, scaler), True
            grads = self._gradients()
        try:
            with self._uninterrupted:
                plan.step(grads, reread=reread, brought=brought, found=scaler.found if there else None)
                self._put_in_place(optimizer, plan)
                for group in self._scheduled:
                    group.write_quietly("updates", group["updates"] + 1)
        except NotFiniteError as error:
            for group, lr in zip(self._scheduled, rates, strict=False):
                optimizer.write_rate(group, lr)
            optimizer.skip(error.name)
            return plan if self._waiting is None else None
        if optimizer.capturable:
            self._captured += plan.kept_for_graphs
        return plan

    def _gradients(self) -> list[Any]:
        grads = [param.grad for param in self._params]
        return local_gradients(self._params, grads) if self._sharded else grads

    # -- whether the plan still describes the optimizer --------------------------------------------

    def _news(self, optimizer: AttachedOptimizer, plan: Plan) -> bool | None:
        """Whether any number has changed since the last step; None where the plan does not describe the groups."""
        if optimizer.state is not self._states or (self._changed_states and not self._states_stand()):
            return None
        changed = {*self._silent}
        while self._changed_groups:
            changed.add(self._changed_groups.pop())
        if changed and not self._groups_stand(optimizer, plan, changed):
            return None
        if changed:
            self._sort(optimizer)
        listed = self._lists[0] if len(self._lists) == 1 else [*chain.from_iterable(self._lists)]
        same = same_objects(listed, self._every)
        if same and self._sharded:
            same = same_objects([*map(local, self._params)], plan.params)
        return bool(changed) if same else None

    def _groups_stand(self, optimizer: AttachedOptimizer, plan: Plan, changed: set[int]) -> bool:
        """Whether groups that were written to, by their ids, keep their parameters and what the values mean."""
        return all(
            group["params"] is params and group.get(KEY) == own
            for group, params, own in zip(self._groups, self._lists, self._overrides, strict=True)
            if id(group) in changed
        ) and all(
            settings.alike(optimizer.settings(settings.values, unscale=self._unscales))
            for settings, place in zip(plan.settings, self._places, strict=True)
            if id(self._groups[place]) in changed
        )

    def _states_stand(self) -> bool:
        """Whether what was written to states leaves the tensors of the plan in their places."""
        self._changed_states.clear()
        return all(still_has(self._states.get(param), slots) for param, slots in self._slots)

    def _unplanned_gradient(self) -> bool:
        return bool(self._without) and any(param.grad is not None for param in self._without)

    # -- a new plan --------------------------------------------------------------------------------

    def _prepare(self, optimizer: AttachedOptimizer) -> None:
        """Watch anew, for which counts are read from their device."""
        check_not_captured({param.device for group in optimizer.param_groups for param in group["params"]})
        self.watch(optimizer)

    def _make_plan(self, optimizer: AttachedOptimizer, scaler: Scaler) -> Plan:
        """A plan for what has a gradient or a state; states that are missing are made, and not yet put in place."""
        self._prepare(optimizer)
        self._changed_groups.clear()
        self._changed_states.clear()
        groups = optimizer.param_groups
        members = [(place, *named) for place, group in enumerate(groups) for named in named_parameters(group)]
        _check_once(members)
        counts = [count for group in groups for count in map(exact_steps(group).get, keys_of(group))]
        rows = Rows(groups)
        updated = [
            (order, row, name, param)
            for order, (place, name, param) in enumerate(members)
            if (row := rows.of(place, name)) is not None
        ]
        settings = [optimizer.settings(values, unscale=self._unscales) for _, values in rows.listed]
        reaches = Reaches(optimizer.partition)
        made = [
            (
                make_item(
                    name, param, row, order, settings[row], optimizer.state, reaches.of(name, param), counts[order]
                ),
                param,
            )
            for order, row, name, param in updated
            if param.grad is not None or "step" in optimizer.state.get(param, {})
        ]
        # With shapes alone, as memory is estimated by, states are made and that is all; beside others they are refused.
        items, abstract = ([], made) if all(is_abstract(param) for _, param in made) else (made, [])
        self._waiting, self._counted = (items, abstract), None
        self._params = [param for _, param in items]
        self._every = [param for *_, param in members]
        self._sharded = any(map(is_sharded, self._every))
        self._states: Any = optimizer.state
        self._slots: list[tuple[Any, dict[str, Any]]] = []
        self._places = [place for place, _ in rows.listed]
        self._groups = [*groups]
        self._lists = [group["params"] for group in groups]
        self._overrides = [group.get(KEY) for group in groups]
        planned = {id(param) for _, param in made}
        self._without = [param for *_, param in updated if id(param) not in planned]
        self._place_counts(optimizer, [item for item, _ in items], scaler)
        return Plan(
            [item for item, _ in items],
            self._gradients(),
            settings,
            optimizer.shared_sums(),
            resident=self._resident,
            capturable=optimizer.capturable,
        )

    def _place_counts(self, optimizer: AttachedOptimizer, items: Sequence[Item], scaler: Scaler) -> None:
        """Have counts lie on the device where graphs are to go on with them, or a scaler to decide there."""
        devices = {item.param.device for item in items}
        if not devices:
            return
        if optimizer.capturable and len(devices) > 1:
            named = ", ".join(sorted(map(str, devices)))
            raise ValueError(f"capturable=True needs all parameters on one device; they are on {named}.")
        resident = serving(*devices).resident if len(devices) == 1 else None
        self._device = device = None if resident is None else devices.pop()
        if self._resident is not None and self._resident.device != self._device:
            skipped, self._resident = optimizer.skipped_steps, None
            optimizer.skipped_steps = skipped
        decides = scaler.found is not None and self._decides(optimizer, scaler.found)
        if self._resident is None and resident and device and (optimizer.capturable or decides):
            self._resident = resident(device)

    def _put_in_place(self, optimizer: AttachedOptimizer, plan: Plan) -> None:
        """Put the states of a new plan in place: nothing was refused, and the step was not skipped."""
        if self._waiting is None:
            return
        states, changes, (items, abstract) = optimizer.state, self._changed_states, self._waiting
        self._slots = [
            (param, put_states(states, param, item, step, plan.settings[item.group], changes))
            for (item, param), step in zip(items, plan.steps, strict=True)
        ]
        for item, param in abstract:
            put_states(states, param, item, item.step, plan.settings[item.group], changes)
        self._waiting, self._counted = None, plan


def _check_once(members: list[tuple[int, str, Tensor]]) -> None:
    """Refuse a parameter that is listed twice: it would be updated twice, by states that do not know of each other."""
    names: dict[int, str] = {}
    for _, name, param in members:
        if id(param) in names:
            raise ValueError(
                f"{shortened(name)} is the same parameter as {shortened(names[id(param)])}. List each parameter once, "
                "in one group."
            )
        names[id(param)] = name


def may_be_rehearsal(optimizer: AttachedOptimizer) -> bool:
    """Whether all rates are zero before the first step.

    With zero gradients too, that is how torch.distributed.checkpoint has states made that it can load into:
    then states are made, and nothing else happens, where weights could be clipped, rounded or decayed.
    """
    return not optimizer.state and all(group.get("lr", 0.0) == 0.0 for group in optimizer.param_groups)


def is_not_zero(grad: Tensor | None) -> bool:
    return grad is not None and bool(torch.count_nonzero(grad))


def _tells_all(group: dict[str, Any]) -> bool:
    """Whether no value can change without the group's knowledge, as lists, tensors and arrays can.

    Tensors on the device of the group's parameters need not tell where Triton serves it: kernels read them anew.
    """
    values = (value for key, value in group.items() if key not in _NOT_VALUES and not _fixed(value, None))
    first, params = next(values, None), group["params"]
    if first is None:
        return True
    device = params[0].device if params else None
    if device is None or serving(device).resident is None:
        return False
    return all(_fixed(value, device) for value in (first, *values)) and all(p.device == device for p in params)


def _fixed(value: Any, device: torch.device | None) -> bool:
    if isinstance(value, tuple):
        return all(_fixed(item, device) for item in value)
    return isinstance(value, _IMMUTABLE) or (isinstance(value, Tensor) and value.device == device)
