"""Updates within the backward pass: each parameter as its gradient arrives, which is then let go."""

from __future__ import annotations

import math
import sys
import threading
import warnings
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from neon.attached.averaged import check_weights
from neon.attached.checkpoint import named_parameters
from neon.engine.plan import Plan
from neon.engine.program.options import PREVIOUS
from neon.engine.settings import Settings
from neon.engine.tensors.watch import same_objects
from neon.messages import quoted
from neon.stepping.exact_steps import exact_steps, keys_of
from neon.stepping.group_states import make_item, put_states, still_has
from neon.stepping.groups import GroupStepper, is_not_zero, may_be_rehearsal
from neon.stepping.overrides import Rows
from neon.stepping.sharding import Reaches, is_abstract, local, local_gradients

if TYPE_CHECKING:
    from neon.attached.attached_optimizer import AttachedOptimizer


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
    slots: dict[str, Any]


class BackwardStepper(GroupStepper):
    """Makes a plan for each parameter; `step` only closes what the backward pass has done."""

    def __init__(self) -> None:
        super().__init__()
        self._arriving = threading.RLock()  # a backward pass may run in several threads
        self._hooks: list[Any] = []
        self._own: dict[int, _Own] = {}
        self._members: dict[int, _Member] = {}
        self._listed: list[Any] = []
        self._done: set[int] = set()
        self._stands = True  # whether the parameters are those that have hooks
        self._made: list[Plan] = []  # with whose sums a device need not be waited for until all gradients are there
        weakref.finalize(self, _remove, self._hooks).atexit = False  # parameters outlive an optimizer

    def watch(self, optimizer: AttachedOptimizer) -> None:
        super().watch(optimizer)
        self._own.clear()
        self.release()
        for place in range(len(optimizer.param_groups)):
            self._add_hooks(optimizer, place)

    def added(self, optimizer: AttachedOptimizer) -> None:
        self._add_hooks(optimizer, len(optimizer.param_groups) - 1)

    def _add_hooks(self, optimizer: AttachedOptimizer, place: int) -> None:
        group, arrived = optimizer.param_groups[place], partial(_arrived, weakref.ref(optimizer))
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
            rows = Rows([group])
            if rows.of(0, member.name) is None:  # frozen
                self._let_go(param)
            else:
                self._update(optimizer, param, member, group, optimizer.settings(rows.listed[0][1]), rehearsal)

    def _let_go(self, param: Tensor) -> None:
        self._done.add(id(param))
        param.grad = None

    def _update(
        self,
        optimizer: AttachedOptimizer,
        param: Any,
        member: _Member,
        group: dict[str, Any],
        settings: Settings,
        rehearsal: bool,
    ) -> None:
        """Update a parameter, with its plan where that holds; only then are states that are new put in place."""
        grads, item, own = local_gradients([param], [param.grad]), None, self._own.get(id(param))
        if own is None or not _holds(own, param, group, settings, optimizer.state.get(param, {}), grads):
            reach = Reaches(optimizer.partition).of(member.name, param)
            count = own.plan.counts.read().item() if own else exact_steps(group).get(member.key)
            item = make_item(member.name, param, 0, member.order, settings, optimizer.state, reach, count)
            if is_abstract(param):
                put_states(optimizer.state, param, item, item.step, settings, self._changed_states)
                self._let_go(param)
                return
            own = _Own(Plan([item], grads, [settings]), group, {})
        with self._uninterrupted:
            if not rehearsal:
                own.plan.step(grads, brought={"previous_norm": group.get("previous_norm", 0.0)})
                self._made.append(own.plan)
                self._let_go(param)
            if item is not None:
                slots = put_states(optimizer.state, param, item, own.plan.steps[0], settings, self._changed_states)
                self._own[id(param)] = own._replace(slots=slots)

    def close(self, optimizer: AttachedOptimizer) -> None:
        """What follows when all gradients have arrived: the norm of the step is known, schedules move on."""
        if not self._done:
            return
        clipping = [g for g in optimizer.param_groups if g.get("gradient_clip_previous_norm") is not None]
        squares = [plan.totals.get(PREVIOUS, 0.0) for plan in self._made] if clipping else []
        wrong = [plan for plan, square in zip(self._made, squares, strict=False) if not math.isfinite(square)]
        with self._uninterrupted:
            for group in () if wrong else clipping:
                group["previous_norm"] = math.sqrt(sum(squares))
            for group in optimizer.param_groups:
                if "updates" in group:
                    group["updates"] += 1
                    optimizer.apply_schedule(group)
            self._done.clear()
            self._made.clear()
        if wrong:
            warnings.warn(
                f"The gradient of parameter {quoted(wrong[0].items[0].name)} is not finite, and neither is the norm of "
                "this step, by which the next would have been clipped: it is clipped by the last norm that was finite.",
                RuntimeWarning,
                stacklevel=2,
            )


def _holds(
    own: _Own, param: Any, group: dict[str, Any], settings: Settings, state: Any, grads: list[Tensor | None]
) -> bool:
    """Whether the plan of a parameter is still for this group, these settings and states, and takes its gradient."""
    return (
        own.group is group
        and own.plan.settings[0].alike(settings)
        and still_has(state, own.slots)
        and own.plan.params[0] is local(param)
        and own.plan.holds(grads)
    )
