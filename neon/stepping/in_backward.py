"""Updates within the backward pass: each parameter as its gradient arrives, which is then let go."""

from __future__ import annotations

import math
import sys
import threading
import warnings
import weakref
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from neon.engine.plan import Plan
from neon.engine.program.options import PREVIOUS
from neon.engine.refusals.tensors import check_once
from neon.engine.settings import Item, Settings
from neon.engine.tensors.watch import same_objects
from neon.messages import quoted
from neon.stepping.aside import Aside
from neon.stepping.exact_steps import exact_steps
from neon.stepping.group_names import keys_of, named_parameters
from neon.stepping.group_rules import GroupRules
from neon.stepping.group_states import Items, Placed, count_of, put_states, still_has
from neon.stepping.groups import GroupStepper, LeftOut, has_no_rate, is_not_zero
from neon.stepping.overrides import Rows
from neon.stepping.sharding import Reaches, is_abstract, local, local_gradients


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


def _remove(hooks: list[Any]) -> None:
    while hooks:
        hooks.pop().remove()


class _Member(NamedTuple):
    """Where a parameter stands among all: its group, its name, what its count goes by, its number."""

    place: int
    name: str
    key: str
    order: int


class _Own(NamedTuple):
    """The plan of one parameter, and the group and the states that it was made for."""

    plan: Plan
    group: dict[str, Any]
    placed: Placed


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
        self._made: list[Plan] = []  # with whose sums a device need not be waited for until all gradients are there
        weakref.finalize(self, _remove, self._hooks).atexit = False  # parameters outlive an optimizer

    def watch(self, optimizer: Optimizer) -> None:
        check_once(named for group in optimizer.param_groups for named in named_parameters(group))
        super().watch(optimizer)
        self._own.clear()
        self.release()
        for place in range(len(optimizer.param_groups)):
            self._add_hooks(optimizer, place)

    def added(self, optimizer: Optimizer) -> None:
        self._add_hooks(optimizer, len(optimizer.param_groups) - 1)

    def _add_hooks(self, optimizer: Optimizer, place: int) -> None:
        group, arrived = optimizer.param_groups[place], partial(_arrived, weakref.ref(optimizer), weakref.ref(self))
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
            if not same_objects(_listed(optimizer), self._listed):
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
                self._stands = same_objects(_listed(optimizer), self._listed)
            if not self._stands:
                return  # there are other parameters now: `step` takes their gradients, and has hooks put on them
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
                self._stepper.run(holder, ready, None, {"previous_norm": holder.group.get("previous_norm", 0.0)})

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
                group["previous_norm"] = math.sqrt(sum(squares))
            counted = [group for group in optimizer.param_groups if "updates" in group]
            for group in counted:
                group["updates"] += 1
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
        rows = Rows([self.group])
        frozen = rows.of(0, member.name) is None
        self.settings = None if frozen else stepper._rules.settings(rows.listed[0][1])
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
        self._of._made.append(plan)
        self._of.let_go(self._param)
