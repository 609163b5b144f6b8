"""One step over parameter groups: what an attached optimizer does, with a plan that is kept while it holds."""

from __future__ import annotations

import threading
from functools import partial
from itertools import chain
from operator import is_
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neon.engine.plan import Plan
from neon.engine.settings import Item
from neon.optimizers.schedules import counts_steps
from neon.optimizers.stepper import new_states
from neon.torch.checkpoint import named_parameters
from neon.torch.watched import Watched

if TYPE_CHECKING:
    from neon.torch.optimizer import AttachedOptimizer

# What a group holds besides values.
_TENSORS = ("params", "param_names")


class GroupStepper:
    """Steps for one attached optimizer.

    Whatever may differ from the last step is either asked for (gradients, where tensors are) or says so
    itself (groups and states, which are `Watched`): 500 groups cost what one costs.
    """

    def __init__(self, optimizer: AttachedOptimizer) -> None:
        self._optimizer = optimizer
        self._plan: Plan | None = None
        self._lock = threading.Lock()
        self._changed_groups: dict[int, Watched] = {}
        self._changed_states: dict[int, Watched] = {}
        self._scheduled: list[Watched] = []

    def watch(self) -> None:
        """Have the groups and states of the optimizer tell when they are written to; the plan is made anew."""
        optimizer, self._plan = self._optimizer, None
        optimizer.param_groups[:] = [Watched.of(group, self._changed_groups) for group in optimizer.param_groups]
        states = {param: Watched.of(state, self._changed_states) for param, state in optimizer.state.items()}
        empty = partial(Watched, changes=self._changed_states)
        optimizer.state = Watched(empty, states, changes=self._changed_states)

    def step(self) -> None:
        """Update every parameter that has a gradient, once; what is refused leaves all of them as they were."""
        with self._lock:
            # Taken away until all is done: after an error nothing is believed of what was known before.
            plan, self._plan = self._plan, None
            self._advance_schedules(plan)
            grads: list[Any] = []
            reread = None
            if plan is not None and (reread := self._news(plan)) is not None:
                grads = [param.grad for param in plan.params]
                if self._unplanned_gradient() or not plan.holds(grads):
                    reread = None
            if plan is None or reread is None:
                plan, reread = self._make_plan(), True
                grads = [param.grad for param in plan.params]
            plan.step(grads, reread=reread)
            for group in self._scheduled:
                group.write_quietly("updates", group["updates"] + 1)
            self._plan = plan

    def _advance_schedules(self, plan: Plan | None) -> None:
        optimizer = self._optimizer
        if plan is None or self._changed_groups:
            self._scheduled = [Watched.of(g, self._changed_groups) for g in optimizer.param_groups if "updates" in g]
        for group in self._scheduled:
            if counts_steps(optimizer.schedule_of(group)):
                optimizer.apply_schedule(group)

    def _news(self, plan: Plan) -> bool | None:
        """Whether any number has changed since the last step; None where the plan does not describe the groups."""
        optimizer = self._optimizer
        if not (
            not self._changed_states and _same(optimizer.param_groups, self._groups) and optimizer.state is self._state
        ):
            return None
        changed = set()
        while self._changed_groups:
            changed.add(self._changed_groups.popitem()[0])
        for place, group in enumerate(optimizer.param_groups if changed else ()):
            if id(group) in changed and (
                group["params"] is not self._lists[place] or not plan.settings[place].alike(optimizer.settings(group))
            ):
                return None
        if changed:
            self._silent = _silent(self._groups)
        for group, keys in self._silent:
            optimizer.check(group, {key: group[key] for key in keys})
        news = bool(changed or self._silent)
        return news if _same([*chain.from_iterable(self._lists)], self._every) else None

    def _unplanned_gradient(self) -> bool:
        return bool(self._without) and any(param.grad is not None for param in self._without)

    def _make_plan(self) -> Plan:
        optimizer = self._optimizer
        self.watch()
        self._changed_groups.clear()
        settings = [optimizer.settings(group) for group in optimizer.param_groups]
        members = [
            (place, name, param)
            for place, group in enumerate(optimizer.param_groups)
            for name, param in named_parameters(group)
        ]
        items = [
            self._item(name, param, place, order, list(settings[place].program.states))
            for order, (place, name, param) in enumerate(members)
            if param.grad is not None or "step" in optimizer.state.get(param, {})
        ]
        plan = Plan(items, [item.param.grad for item in items], settings)
        # Nothing was refused: only now are states put in place.
        for item, step in zip(items, plan.steps, strict=True):
            names = settings[item.group].program.states
            optimizer.state[item.param].update({"step": step, **dict(zip(names, item.states, strict=True))})
        self._changed_states.clear()
        self._groups, self._state = [*optimizer.param_groups], optimizer.state
        self._lists = [group["params"] for group in self._groups]
        self._every = [param for _, _, param in members]
        planned = {id(param) for param in plan.params}
        self._without = [param for param in self._every if id(param) not in planned]
        self._silent = _silent(self._groups)
        return plan

    def _item(self, name: str, param: Tensor, place: int, order: int, states: list[str]) -> Item:
        kept = self._optimizer.state.get(param, {})
        if all(state in kept for state in states):
            tensors = [kept[state] for state in states]
        else:
            tensors = new_states(self._optimizer.settings(self._optimizer.param_groups[place]).program, name, param)
        return Item(name, param, tensors, kept.get("step", torch.tensor(0.0)), place, order)


def _silent(groups: list[dict[str, Any]]) -> list[tuple[dict[str, Any], list[str]]]:
    """The keys of groups whose values may change without the group's knowledge: lists and tensors."""
    found = (
        (group, [key for key, value in group.items() if key not in _TENSORS and isinstance(value, (list, Tensor))])
        for group in groups
    )
    return [(group, keys) for group, keys in found if keys]


def _same(now: Any, before: list[Any]) -> bool:
    return len(now) == len(before) and all(map(is_, now, before))
