"""Updates within the backward pass: each parameter as its gradient arrives, which is then let go."""

from __future__ import annotations

import math
import sys
import threading
import warnings
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from neon.engine.plan import Plan
from neon.engine.program.options import PREVIOUS
from neon.engine.refusals.tensors import check_once
from neon.engine.settings import Item, Settings
from neon.engine.tensors.watch import same_objects
from neon.engine.versions import uncompiled
from neon.messages import quoted
from neon.stepping.aside import Aside
from neon.stepping.exact_steps import exact_steps
from neon.stepping.group_names import keys_of, named_parameters
from neon.stepping.group_rules import GroupRules
from neon.stepping.group_states import Items, Placed, count_of, put_states, still_has
from neon.stepping.groups import GroupStepper, LeftOut, has_no_rate, is_not_zero
from neon.stepping.on_device import tells_all
from neon.stepping.overrides import read, values_over
from neon.stepping.sharding import Reaches, is_abstract, local, local_gradients
from neon.stepping.watched import Watched


def refuse_replicas(target: Any) -> None:
    """Refuse a module under DistributedDataParallel, whose processes would each follow their own gradients."""
    parallel = sys.modules.get("torch.nn.parallel.distributed")
    modules = target.modules() if isinstance(target, nn.Module) else ()
    if parallel is not None and any(isinstance(module, parallel.DistributedDataParallel) for module in modules):
        raise ValueError(
            "in_backward=True cannot be had under DistributedDataParallel: each parameter is updated before its "
            "gradient has been averaged over the processes. Attach without in_backward, or shard by fully_shard."
        )


def _arrived(optimizer: weakref.ref[Optimizer], stepper: weakref.ref[BackwardStepper], param: Tensor) -> None:
    """The hook of a parameter, which must not keep the optimizer: no collector sees into torch's hooks."""
    owner, its_stepper = optimizer(), stepper()
    if owner is not None and its_stepper is not None:
        its_stepper.arrived(owner, param)


def _listed(optimizer: Optimizer) -> list[Any]:
    """All parameters, with a None behind each group's."""
    return [param for group in optimizer.param_groups for param in (*group["params"], None)]


def _write(group: dict[str, Any], name: str, value: Any) -> None:
    """Write what no settings are made of."""
    dict.__setitem__(group, name, value)


@uncompiled
def _remove(hooks: list[Any]) -> None:
    while hooks:
        hooks.pop().remove()


class _Member(NamedTuple):
    """Where a parameter stands among all: its group, its name, what its count goes by, its number."""

    place: int
    name: str
    key: str
    order: int


class _Group:
    """How often a group has been written to, and what its values mean since, by the values that layers have."""

    def __init__(self, group: dict[str, Any]) -> None:
        self.group, self.writes = group, 0
        self.settings: dict[str, Settings] = {}
        self.tells = tells_all(group)

    def written(self) -> None:
        self.writes += 1
        self.settings.clear()
        self.tells = tells_all(self.group)


@dataclass(slots=True, eq=False)
class _Own:
    """The plan of one parameter, and the group and the states that it was made for.

    The numbers are how often these had been written to when it was last asked whether the plan fits them.
    """

    plan: Plan
    group: dict[str, Any]
    placed: Placed
    known: _Group | None = None  # the same group, where it tells of everything that is written to it
    group_writes: int = 0
    state_writes: int = -1


class BackwardStepper(GroupStepper):
    """Makes a plan for each parameter; `step` only closes what the backward pass has done."""

    def __init__(self, rules: GroupRules, aside: Aside) -> None:
        super().__init__(rules)
        self._aside = aside
        self._arriving = threading.RLock()  # a backward pass may run in several threads
        self._hooks: list[Any] = []
        self._own: dict[int, _Own] = {}
        self._members: dict[int, _Member] = {}
        self._listed: list[Any] = []
        self._done: set[int] = set()
        self._stands = True  # whether the parameters are those that have hooks
        self._groups: dict[int, _Group] = {}
        self._states: Any = None
        self._state_writes = 0
        self._made: list[Plan] = []  # with whose sums a device need not be waited for until all gradients are there
        weakref.finalize(self, _remove, self._hooks).atexit = False  # parameters outlive an optimizer

    def watch(self, optimizer: Optimizer) -> None:
        check_once(named for group in optimizer.param_groups for named in named_parameters(group))
        super().watch(optimizer)
        self._states = optimizer.state
        self._own.clear()
        self._groups.clear()
        self.release()
        for place in range(len(optimizer.param_groups)):
            self._add_hooks(optimizer, place)
        if self.looking is not None:  # all of a step is looked at, or nothing: so it is known before the first arrives
            self.looking.follow(float(state["step"]) for state in optimizer.state.values() if "step" in state)

    def added(self, optimizer: Optimizer) -> None:
        self._add_hooks(optimizer, len(optimizer.param_groups) - 1)

    def _add_hooks(self, optimizer: Optimizer, place: int) -> None:
        optimizer.param_groups[place] = group = Watched.of(optimizer.param_groups[place], self._changed_groups)
        self._groups[id(group)] = _Group(group)
        arrived = partial(_arrived, weakref.ref(optimizer), weakref.ref(self))
        for (name, param), key in zip(named_parameters(group), keys_of(group), strict=True):
            self._members[id(param)] = _Member(place, name, key, len(self._members))
            if param.requires_grad:
                self._hooks.append(param.register_post_accumulate_grad_hook(arrived))
        self._listed += [*group["params"], None]

    def release(self) -> None:
        _remove(self._hooks)
        self._members.clear()
        self._listed.clear()

    def _exact_counts(self) -> dict[int, float]:
        return {param: own.plan.counts.read().item() for param, own in self._own.items()}

    def step(self, optimizer: Optimizer) -> LeftOut | None:
        """Close the step; gradients that did not come from a backward pass are taken now."""
        if "found_inf" in vars(optimizer):
            raise RuntimeError(
                "An optimizer with in_backward=True cannot follow a GradScaler: the parameters are updated before it "
                "has looked at the gradients. Train in bfloat16 without a scaler, or attach without in_backward."
            )
        with self._arriving:
            if not self._has_hooks(optimizer):
                self.watch(optimizer)
            waiting = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            rehearsal = not self._done and not optimizer.state and has_no_rate(optimizer)
            rehearsal = rehearsal and not any(is_not_zero(p.grad) for p in waiting)
            for param in waiting:
                self.arrived(optimizer, param, rehearsal=rehearsal)
            if not rehearsal:
                self.close(optimizer)
        return None

    def arrived(self, optimizer: Optimizer, param: Tensor, *, rehearsal: bool = False) -> None:
        """Update a parameter, whose gradient is there, and let the gradient go; in a rehearsal only make its states."""
        if self._aside.in_place is not None or self._aside.given:
            grad, param.grad = param.grad, None  # what is refused does not wait for the next backward pass
            self._aside.check_step()
            param.grad = grad
        with self._arriving:
            if id(param) in self._done:  # nobody has called step() since the last backward pass
                self.close(optimizer)
            if not self._done:
                self._stands = self._has_hooks(optimizer)
            if not self._stands:
                return  # there are other parameters now: `step` takes their gradients, and has hooks put on them
            if not rehearsal and self._run_as_before(optimizer, param):
                return
            holder = _Parameter(self, optimizer, param)
            if holder.settings is None:
                self.let_go(param)
                return
            own = self._own.get(id(param))
            ready = self._stepper.ready(holder, own and own.plan)
            if ready is None:
                self.let_go(param)
            elif rehearsal:
                self._stepper.rehearse(holder, ready[0])
            else:
                inputs = {"previous_norm": holder.group.get("previous_norm", 0.0)}
                self._stepper.run(holder, ready, None, inputs, look=self._looks)

    def _has_hooks(self, optimizer: Optimizer) -> bool:
        """Whether the parameters are those that have hooks, and the states those that tell of what is written."""
        return optimizer.state is self._states and same_objects(_listed(optimizer), self._listed)

    def _run_as_before(self, optimizer: Optimizer, param: Tensor) -> bool:
        """Update a parameter whose group and states nobody has written to; False, with nothing done, for others."""
        if self._changed_groups or self._changed_states:
            self._count_writes()
        own, grad = self._own.get(id(param)), param.grad
        if own is None or own.known is None or type(grad) is not Tensor:
            return False
        if own.group_writes != own.known.writes or own.state_writes != self._state_writes:
            return False
        group, place = own.group, self._members[id(param)].place
        if optimizer.param_groups[place] is not group or optimizer.state is not self._states:
            return False
        plan, grads = own.plan, [grad]
        if plan.params[0] is not param or not plan.holds(grads):
            return False
        clips = group.get("gradient_clip_previous_norm") is not None
        with self._stepper.uninterrupted:
            inputs = {"previous_norm": group.get("previous_norm", 0.0)} if clips else None
            plan.step(grads, None, False, inputs, look=self._looks)
            self._made.append(plan)
            self.let_go(param)
        return True

    def _count_writes(self) -> None:
        while self._changed_groups:
            if (known := self._groups.get(self._changed_groups.pop())) is not None:
                known.written()
        if self._changed_states:
            self._changed_states.clear()
            self._state_writes += 1

    @property
    def _looks(self) -> bool:
        """Whether the step that is being made is looked at."""
        return self.looking is not None and self.looking.is_due

    def note(self, own: _Own) -> None:
        """Note that a plan has gone by all that has been written until now."""
        known = self._groups.get(id(own.group))
        own.known = known if known is not None and known.tells else None
        own.group_writes, own.state_writes = 0 if known is None else known.writes, self._state_writes

    def settings(self, group: dict[str, Any], own: Mapping[str, Any]) -> Settings:
        """What the values of a group mean, with those of a layer over them: read anew where they were written to."""
        known, text = self._groups.get(id(group)), repr(own)
        if known is None or not known.tells:
            return self._rules.settings(values_over(own, group))
        if text not in known.settings:
            known.settings[text] = self._rules.settings(values_over(own, group))
        return known.settings[text]

    def let_go(self, param: Tensor) -> None:
        """Have a gradient done with, whose memory the rest of the backward pass can use."""
        self._done.add(id(param))
        param.grad = None

    def close(self, optimizer: Optimizer) -> None:
        """What follows when all gradients have arrived: the norm of the step is known, schedules move on."""
        if not self._done:
            return
        clipping = [g for g in optimizer.param_groups if g.get("gradient_clip_previous_norm") is not None]
        squares = [plan.totals.get(PREVIOUS, 0.0) for plan in self._made] if clipping else []
        wrong = [plan for plan, square in zip(self._made, squares, strict=False) if not math.isfinite(square)]
        with self._stepper.uninterrupted:
            for group in () if wrong else clipping:
                _write(group, "previous_norm", math.sqrt(sum(squares)))
            counted = [group for group in optimizer.param_groups if "updates" in group]
            for group in counted:
                _write(group, "updates", group["updates"] + 1)
            if self.looking is not None:
                looked = self._made if self.looking.is_due else ()
                self.looking.made([plan.observation for plan in looked if plan.observation is not None])
            self._done.clear()
            self._made.clear()
            self._rules.apply_schedule(*counted)
        if wrong:
            warnings.warn(
                f"The gradient of parameter {quoted(wrong[0].items[0].name)} is not finite, and neither is the norm of "
                "this step, by which the next would have been clipped: it is clipped by the last norm that was finite.",
                RuntimeWarning,
                stacklevel=2,
            )


class _Parameter:
    """The holder of one parameter whose gradient has arrived; `settings` is None where it is frozen."""

    settings: Settings | None

    def __init__(self, stepper: BackwardStepper, optimizer: Optimizer, param: Any) -> None:
        self._of, self._optimizer, self._param = stepper, optimizer, param
        self._member = member = stepper._members[id(param)]
        self.group = optimizer.param_groups[member.place]
        own = read(self.group).get(member.name, {})
        self.settings = None if own.get("frozen") else stepper.settings(self.group, own)
        self._item: Item | None = None  # of a new plan

    def news(self, plan: Plan) -> bool | None:
        own = self._of._own[id(self._param)]
        stands = (
            own.group is self.group
            and self.settings is not None
            and plan.settings[0].alike(self.settings)
            and still_has(self._optimizer.state.get(self._param, {}), own.placed)
            and plan.params[0] is local(self._param)
        )
        return stands or None

    def gradients(self) -> list[Tensor | None]:
        return local_gradients([self._param], [self._param.grad])

    def make_plan(self) -> Plan | None:
        assert self.settings is not None
        member, own = self._member, self._of._own.get(id(self._param))
        reach = Reaches(self._of._rules.partition).of(member.name, self._param)
        count = own.plan.counts.read().item() if own else exact_steps(self.group).get(member.key)
        states = self._optimizer.state
        matrices = self._of._rules.matrices(self.group, member.name, self._param)
        self._item = Items(states).make(
            member.name, self._param, 0, member.order, self.settings, reach, count, matrices
        )
        if is_abstract(self._param):
            self._put(count_of(self._item))
            return None
        return Plan([self._item], self.gradients(), [self.settings])

    def _put(self, step: Tensor) -> Placed:
        assert self._item is not None
        assert self.settings is not None
        changes = self._of._changed_states
        return put_states(self._optimizer.state, self._param, self._item, step, self.settings, changes)

    def put_in_place(self, plan: Plan) -> None:
        if self._item is not None:
            self._of._own[id(self._param)] = _Own(plan, self.group, self._put(plan.steps[0]))

    def updated(self, plan: Plan) -> None:
        stepper = self._of
        stepper.note(stepper._own[id(self._param)])
        stepper._made.append(plan)
        stepper.let_go(self._param)
