"""One step over parameter groups: what an attached optimizer does, with a plan that is kept while it holds."""

from __future__ import annotations

import threading
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neon.engine.plan import Plan
from neon.engine.settings import Item
from neon.engine.trace import Program
from neon.engine.watch import same_objects
from neon.optimizers.schedules import counts_steps
from neon.optimizers.stepper import new_states
from neon.torch.checkpoint import named_parameters
from neon.torch.watched import Watched

if TYPE_CHECKING:
    from neon.torch.optimizer import AttachedOptimizer

# What a group holds besides values.
_TENSORS = ("params", "param_names")
_IMMUTABLE = (int, float, bool, str, type(None))


class GroupStepper:
    """The steps of one attached optimizer, which it is given each time: it holds on to nothing that holds it.

    Whatever may differ from the last step is either asked for (gradients, where tensors are, which groups
    there are) or says so itself (groups and states, which are `Watched`): 500 groups cost what one costs.
    """

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._lock = threading.Lock()
        self._changed_groups: set[int] = set()
        self._changed_states: set[int] = set()
        self._groups: list[dict[str, Any]] = []

    def watch(self, optimizer: AttachedOptimizer) -> None:
        """Have the groups and states of the optimizer tell when they are written to; the plan is made anew."""
        self._plan = None
        optimizer.param_groups[:] = [Watched.of(group, self._changed_groups) for group in optimizer.param_groups]
        empty = partial(Watched, changes=self._changed_states)
        optimizer.state = states = Watched.of(optimizer.state, self._changed_states, empty)
        for param, state in states.items():
            if isinstance(state, dict):
                states.write_quietly(param, Watched.of(state, self._changed_states))
        self._sort(optimizer.param_groups)

    def _sort(self, groups: list[dict[str, Any]]) -> None:
        """Find the groups to look at in every step: with a schedule, or with values that may change in silence."""
        self._scheduled: list[Any] = [group for group in groups if "updates" in group]
        self._silent = {id(group) for group in groups if not _tells_all(group)}

    def step(self, optimizer: AttachedOptimizer) -> None:
        """Update every parameter that has a gradient, once; what is refused leaves all of them as they were."""
        with self._lock:
            # Taken away until all is done: after an error nothing is believed of what was known before.
            plan, self._plan = self._plan, None
            if plan is None or not same_objects(optimizer.param_groups, self._groups):
                plan = None
                self.watch(optimizer)
            for group in self._scheduled:
                if counts_steps(optimizer.schedule_of(group)):
                    optimizer.apply_schedule(group)
            grads: list[Any] = []
            reread = None
            if plan is not None and (reread := self._news(optimizer, plan)) is not None:
                grads = [param.grad for param in plan.params]
                if self._unplanned_gradient() or not plan.holds(grads):
                    reread = None
            if plan is None or reread is None:
                plan, reread = self._make_plan(optimizer), True
                grads = [param.grad for param in plan.params]
            plan.step(grads, reread=reread)
            for group in self._scheduled:
                group.write_quietly("updates", group["updates"] + 1)
            self._plan = plan

    # -- whether the plan still describes the optimizer --------------------------------------------

    def _news(self, optimizer: AttachedOptimizer, plan: Plan) -> bool | None:
        """Whether any number has changed since the last step; None where the plan does not describe the groups."""
        if optimizer.state is not self._states or (self._changed_states and not self._states_stand()):
            return None
        changed = {*self._silent}
        while self._changed_groups:
            changed.add(self._changed_groups.pop())
        for place, group in enumerate(self._groups if changed else ()):
            if id(group) in changed and (
                group["params"] is not self._lists[place] or not plan.settings[place].alike(optimizer.settings(group))
            ):
                return None
        if changed:
            self._sort(self._groups)
        return bool(changed) if same_objects([*chain.from_iterable(self._lists)], self._every) else None

    def _states_stand(self) -> bool:
        """Whether what was written to states leaves the tensors of the plan in their places."""
        self._changed_states.clear()
        states = [self._states.get(param) for param, _ in self._slots]
        return all(isinstance(state, Watched) for state in states) and all(
            state.get(name) is tensor
            for state, (_, slots) in zip(states, self._slots, strict=True)
            for name, tensor in slots.items()
        )

    def _unplanned_gradient(self) -> bool:
        return bool(self._without) and any(param.grad is not None for param in self._without)

    # -- a new plan --------------------------------------------------------------------------------

    def _make_plan(self, optimizer: AttachedOptimizer) -> Plan:
        self.watch(optimizer)
        self._changed_groups.clear()
        self._changed_states.clear()
        settings = [optimizer.settings(group) for group in optimizer.param_groups]
        members = [
            (place, name, param)
            for place, group in enumerate(optimizer.param_groups)
            for name, param in named_parameters(group)
        ]
        _check_once(members)
        items = [
            _item(name, param, place, order, settings[place].program, optimizer.state.get(param, {}))
            for order, (place, name, param) in enumerate(members)
            if param.grad is not None or "step" in optimizer.state.get(param, {})
        ]
        plan = Plan(items, [item.param.grad for item in items], settings)
        # Nothing was refused: only now are states put in place.
        self._states: Any = optimizer.state
        self._slots = [
            (item.param, {"step": step, **dict(zip(settings[item.group].program.states, item.states, strict=True))})
            for item, step in zip(items, plan.steps, strict=True)
        ]
        for param, slots in self._slots:
            state = Watched.of(self._states.get(param, {}), self._changed_states)
            for name, tensor in slots.items():
                state.write_quietly(name, tensor)
            self._states.write_quietly(param, state)
        self._groups = [*optimizer.param_groups]
        self._lists = [group["params"] for group in self._groups]
        self._every = [param for _, _, param in members]
        planned = {id(param) for param in plan.params}
        self._without = [param for param in self._every if id(param) not in planned]
        return plan


def _item(name: str, param: Tensor, place: int, order: int, program: Program, kept: dict[str, Any]) -> Item:
    complete = all(state in kept for state in program.states)
    tensors = [kept[state] for state in program.states] if complete else new_states(program, name, param)
    return Item(name, param, tensors, kept.get("step", torch.tensor(0.0)), place, order)


def _check_once(members: list[tuple[int, str, Tensor]]) -> None:
    """Refuse a parameter that is listed twice: it would be updated twice, by states that do not know of each other."""
    names: dict[int, str] = {}
    for _, name, param in members:
        if id(param) in names:
            raise ValueError(
                f"{name} is the same parameter as {names[id(param)]}. List each parameter once, in one group."
            )
        names[id(param)] = name


def _tells_all(group: dict[str, Any]) -> bool:
    """Whether no value can change without the group's knowledge, as lists, tensors and arrays can."""
    return all(_fixed(value) for key, value in group.items() if key not in _TENSORS)


def _fixed(value: Any) -> bool:
    return all(map(_fixed, value)) if isinstance(value, tuple) else isinstance(value, _IMMUTABLE)
