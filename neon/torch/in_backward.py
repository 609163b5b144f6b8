"""Updates within the backward pass: each parameter as its gradient arrives, which is then let go."""

from __future__ import annotations

import math
import sys
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from neon.engine.options import PREVIOUS
from neon.engine.plan import Plan
from neon.engine.watch import same_objects
from neon.torch.averages import check_weights
from neon.torch.checkpoint import named_parameters
from neon.torch.sharding import Reaches, local, local_gradients
from neon.torch.stepper import GroupStepper, Rows, is_not_zero, make_item, may_be_rehearsal, put_states, still_has

if TYPE_CHECKING:
    from neon.torch.optimizer import AttachedOptimizer


def refuse_replicas(target: Any) -> None:
    """Refuse a module under DistributedDataParallel, whose processes would each follow their own gradients."""
    parallel = sys.modules.get("torch.nn.parallel.distributed")
    modules = target.modules() if isinstance(target, nn.Module) else ()
    if parallel is not None and any(isinstance(module, parallel.DistributedDataParallel) for module in modules):
        raise ValueError(
            "in_backward=True cannot be had under DistributedDataParallel: each parameter is updated before its "
            "gradient has been averaged over the processes. Attach without in_backward, or shard by fully_shard."
        )


def _arrived(optimizer: weakref.ref[AttachedOptimizer], param: Tensor) -> None:
    """The hook of a parameter, which must not keep the optimizer: no collector sees into torch's hooks."""
    owner = optimizer()
    if owner is not None and isinstance(owner._stepper, BackwardStepper):
        owner._stepper.arrived(owner, param)


def _listed(optimizer: AttachedOptimizer) -> list[Any]:
    """All parameters, with a None behind each group's."""
    return [param for group in optimizer.param_groups for param in (*group["params"], None)]


class _Member(NamedTuple):
    """Where a parameter stands among all: its group, its name, its number."""

    place: int
    name: str
    order: int


class _Own(NamedTuple):
    """The plan of one parameter, and the group and the states that it was made for."""

    plan: Plan
    group: dict[str, Any]
    slots: dict[str, Any]


class BackwardStepper(GroupStepper):
    """Makes a plan for each parameter; `step` only closes what the backward pass has done."""

    def __init__(self) -> None:
        super().__init__()
        self._arriving = threading.RLock()  # a backward pass may run in several threads
        self._hooks: list[Any] = []
        self._own: dict[int, _Own] = {}
        self._done: set[int] = set()
        self._stands = True  # whether the parameters are those that have hooks
        self._made: list[Plan] = []  # with whose sums a device need not be waited for until all gradients are there

    def watch(self, optimizer: AttachedOptimizer) -> None:
        super().watch(optimizer)
        self._own.clear()
        self.release()
        members = [
            (place, *named) for place, group in enumerate(optimizer.param_groups) for named in named_parameters(group)
        ]
        self._listed = _listed(optimizer)
        self._members = {id(param): _Member(place, name, order) for order, (place, name, param) in enumerate(members)}
        arrived = partial(_arrived, weakref.ref(optimizer))
        self._hooks = [p.register_post_accumulate_grad_hook(arrived) for *_, p in members if p.requires_grad]

    def release(self) -> None:
        for hook in self._hooks:
            hook.remove()

    def step(self, optimizer: AttachedOptimizer) -> None:
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
            rehearsal = not self._done and may_be_rehearsal(optimizer) and not any(is_not_zero(p.grad) for p in waiting)
            for param in waiting:
                self.arrived(optimizer, param, rehearsal=rehearsal)
            if not rehearsal:
                self.close(optimizer)

    def arrived(self, optimizer: AttachedOptimizer, param: Tensor, *, rehearsal: bool = False) -> None:
        """Update a parameter, whose gradient is there, and let the gradient go; in a rehearsal only make its states."""
        if optimizer.aside is not None:
            grad, param.grad = param.grad, None  # what is refused does not wait for the next backward pass
            check_weights(optimizer)
            param.grad, optimizer.aside = grad, None
        with self._arriving:
            if id(param) in self._done:  # nobody has called step() since the last backward pass
                self.close(optimizer)
            if not self._done:
                self._stands = same_objects(_listed(optimizer), self._listed)
            if not self._stands:
                return  # there are other parameters now: `step` takes their gradients, and has hooks put on them
            member = self._members[id(param)]
            group = optimizer.param_groups[member.place]
            rows = Rows(optimizer.param_groups)
            if rows.of(member.place, member.name) is not None:
                own = self._planned(optimizer, param, member, rows)
                if rehearsal:
                    return
                own.plan.step(
                    local_gradients([param], [param.grad]),
                    brought={"previous_norm": group.get("previous_norm", 0.0)},
                )
                self._made.append(own.plan)
            self._done.add(id(param))
            param.grad = None

    def _planned(self, optimizer: AttachedOptimizer, param: Any, member: _Member, rows: Rows) -> _Own:
        """The plan of a parameter for its gradient, made anew where it does not hold."""
        settings = optimizer.settings(rows.listed[0][1])
        grads = local_gradients([param], [param.grad])
        own, state = self._own.get(id(param)), optimizer.state.get(param, {})
        if (
            own is None
            or own.group is not optimizer.param_groups[member.place]
            or not own.plan.settings[0].alike(settings)
            or not still_has(state, own.slots)
            or own.plan.params[0] is not local(param)
            or not own.plan.holds(grads)
        ):
            reach = Reaches(optimizer.partition).of(member.name, param)
            item, _ = make_item(member.name, param, 0, member.order, settings, optimizer.state, reach)
            plan = Plan([item], grads, [settings])
            slots = put_states(optimizer.state, param, item, plan.steps[0], settings, self._changed_states)
            own = self._own[id(param)] = _Own(plan, optimizer.param_groups[member.place], slots)
        return own

    def close(self, optimizer: AttachedOptimizer) -> None:
        """What follows when all gradients have arrived: the norm of the step is known, schedules move on."""
        if not self._done:
            return
        clips = any(group.get("gradient_clip_previous_norm") is not None for group in optimizer.param_groups)
        squares = sum(plan.totals.get(PREVIOUS, 0.0) for plan in self._made) if clips else 0.0
        for group in optimizer.param_groups:
            if group.get("gradient_clip_previous_norm") is not None:
                group["previous_norm"] = math.sqrt(squares)
            if "updates" in group:
                group["updates"] += 1
                optimizer.apply_schedule(group)
        self._done.clear()
        self._made.clear()
