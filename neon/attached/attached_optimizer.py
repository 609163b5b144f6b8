"""The torch.optim.Optimizer that `attach` returns: a described optimizer over the parameters of a model."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from inspect import isroutine
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from neon.arguments import clip_bound, epoch_number, flag, plain
from neon.assignment.description import Description
from neon.assignment.table import table
from neon.attached import layers_by_name as by_layer
from neon.attached.averaged import (
    Aside,
    averages_in_place,
    check_weights,
    give_back,
    loaded_aside,
    with_trained_weights,
)
from neon.attached.checkpoint import check_held, taken_up
from neon.attached.observed import UnlessWrapped, observed
from neon.attached.printed import rows_of
from neon.attached.refusals import check_group, check_leaf, check_options, check_scale, check_sizes
from neon.attached.targets import check_added, check_groups, name_alike, storages_of, target_groups
from neon.engine.counts import mark_movable
from neon.engine.program.numbers import check_names
from neon.engine.program.options import GUARD, SCALE
from neon.engine.settings import Reach, Settings
from neon.engine.tensors.checks import check_capturable
from neon.engine.versions import Method, uncompiled
from neon.messages import listed, shortened
from neon.stepping import overrides
from neon.stepping.groups import GroupStepper
from neon.stepping.in_backward import BackwardStepper, refuse_replicas
from neon.stepping.sharding import Partition
from neon.stepping.watched import Watched, unwatched

# Of an instance, what copies do not take along: hooks, which torch leaves out too, and what a GradScaler has put there.
_NOT_KEPT = {"_stepper", "_storages", "grad_scale", "found_inf"}
_NOT_KEPT |= {f"_optimizer_{kind}_hooks" for kind in (
    "step_pre", "step_post", "state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post",
)}  # fmt: skip


def _untraced(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of torch's without its guard against `torch.compile`, which takes a second to import."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        bare = method if "torch._dynamo" in sys.modules else getattr(method, "__wrapped__", method)
        return bare(*args, **kwargs)

    return uncompiled(call)


def _on_itself(method: Method) -> Method:
    """A method that works on the optimizer itself, also when called on a wrapper that imitates its class.

    Lightning's does: what is written to it stays with it, and of what is read the class's own values hide the
    optimizer's.
    """

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        while "description" not in vars(self):
            self = self.optimizer
        return method(self, *args, **kwargs)

    return uncompiled(cast(Method, call))


class AttachedOptimizer(torch.optim.Optimizer):
    """What `Optimizer.attach(target)` returns: for schedulers, checkpoints and trainers a torch optimizer.

    `target` is a module, named parameters, parameters, or parameter groups (dicts with `params` and any
    of the rule's values under torch's names; `optimizer` names the key of a mapping that a group
    belongs to). Each key of a mapping becomes one group. Gradients are taken as they are.

    - `skip_nonfinite`: a step in which any gradient is infinite or NaN changes nothing, the count of steps
      included. `skipped_steps` counts such steps, `last_nonfinite` names the first parameter of the last
      one. It reads the gradients once more, unless they are clipped by norm anyway.
    - `partitioned`: this process holds only its part of the parameters, as under
      `ZeroRedundancyOptimizer`; norms are summed over the default process group. (For DTensors, as under
      `fully_shard`, they are summed over the mesh without a word.)
    - `in_backward`: each parameter is updated as its gradient arrives in the backward pass, and the gradient
      let go; `step()` only closes the step. There the norm over all gradients comes too late to clip by:
      `gradient_clip_previous_norm=k` multiplies each gradient by min(1, k/‖g‖) with ‖g‖ the norm over all
      gradients of the step *before* (in the first step, of that parameter's own gradient).
    - `capturable`: steps can be captured in a graph of the device (`torch.cuda.graph`). Step counts lie on the
      device, and values of groups that are tensors, such as `lr`, are read there, at each replay. For
      parameters on one device that Triton serves.

    Raises `TypeError` or `ValueError` by name for targets, keys and values that do not fit.
    """

    capturable = False
    aside: Aside | None = None  # where averages stand, or stood in a checkpoint, in the place of weights: these

    profile_hook_step = staticmethod(observed)  # type: ignore[assignment]

    # torch.amp.GradScaler then leaves unscaling to `step`: it sets grad_scale and found_inf before. Through a wrapper
    # that hands on what it does not have, they would be set on the wrapper.
    _step_supports_amp_scaling = UnlessWrapped()

    @uncompiled
    def __init__(
        self,
        description: Description,
        target: Any,
        *,
        skip_nonfinite: bool = False,
        partitioned: bool = False,
        in_backward: bool = False,
        gradient_clip_previous_norm: float | None = None,
        capturable: bool = False,
    ) -> None:
        # Not called `optimizer`: trainers take that for what a wrapper of theirs wraps.
        self.description = description
        self._leaves = description.leaves()
        for key, (leaf, _) in self._leaves.items():
            check_leaf(key, leaf)
        self.skip_nonfinite = flag("skip_nonfinite", skip_nonfinite)
        self._skipped = 0
        self.last_nonfinite: str | None = None
        self.partition = Partition() if flag("partitioned", partitioned) else None
        self.in_backward = flag("in_backward", in_backward)
        self.capturable = flag("capturable", capturable)
        self._previous_norm = clip_bound("gradient_clip_previous_norm", gradient_clip_previous_norm, norm=True)
        check_options(
            skip_nonfinite=skip_nonfinite,
            partitioned=partitioned,
            in_backward=in_backward,
            capturable=capturable,
            gradient_clip_previous_norm=self._previous_norm,
        )
        if in_backward:
            refuse_replicas(target)
        groups, self.assigned = target_groups(description, target)
        defaults: dict[str, Any] = {}
        for leaf, _ in self._leaves.values():
            defaults = {**leaf.group(), **defaults}
        del defaults["epoch"]  # no argument of any class; each group has its own
        defaults.pop(SCALE, None)  # torch would give it to groups whose rule has no rate
        super().__init__(groups, defaults)
        check_groups(self.param_groups)
        self._storages = storages_of(self.param_groups)
        self._stepper = self._new_stepper()
        self._stepper.watch(self)
        if self.capturable:
            for device in {param.device for group in self.param_groups for param in group["params"]}:
                check_capturable(device)

    # -- parameter groups --------------------------------------------------------------------------

    @_on_itself
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; `optimizer` names the key of a mapping that it belongs to (`"default"`).

        Parameters without names, beside others that have some, are called `group_1.0`, `group_1.1`, and so on, by
        the places of group and parameter. The optimizer keeps a dict of its own: what is changed later is
        `param_groups[i]`, not the one given.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict. Received: {type(param_group).__name__}.")
        for name, value in param_group.items():
            param_group[name] = value if name in ("params", "param_names") else plain(value)
        key = param_group.setdefault("optimizer", self.description.default_key)
        if key not in self._leaves:
            raise ValueError(
                f"param_group['optimizer'] must be one of {listed(map(repr, self._leaves))}. Received: "
                f"{shortened(repr(key))}."
            )
        leaf, norms = self._leaves[key]
        values = leaf.group()
        check_names(param_group, values)
        check_scale(key, leaf, param_group)
        for name, value in values.items():
            if name != SCALE or value != 1:  # which checkpoints of earlier versions do not have
                param_group.setdefault(name, value)
        param_group.setdefault(overrides.KEY, overrides.NONE)
        if self._previous_norm is not None:
            param_group.setdefault("gradient_clip_previous_norm", self._previous_norm)
            param_group.setdefault("previous_norm", 0.0)  # from the start: distributed checkpoints load what is there
        if norms:
            param_group.setdefault("outer_clip_norms", tuple(norm.gradient_clip_norm for norm in norms))
        if leaf.has_schedule:
            param_group.setdefault("scheduled_lr", float(param_group["lr"]))
            param_group.setdefault("updates", 0)
        if self.param_groups:  # a group that is added in mid-run is in the same epoch
            param_group["epoch"] = self.param_groups[0]["epoch"]
        self.settings(param_group)  # refuses values by name
        name_alike(self.param_groups, param_group)
        _untraced(torch.optim.Optimizer.add_param_group)(self, param_group)
        try:
            check_group(self, self.param_groups[-1], norms)  # now that there is a list of parameters
            if self.in_backward:
                check_sizes(self.param_groups[-1]["params"], "in_backward=True")
        except ValueError:
            self.param_groups.pop()
            raise
        self.apply_schedule(self.param_groups[-1])
        if "_stepper" in vars(self):  # when all groups of the constructor are there
            check_added(self.param_groups, self._storages)
            self._stepper.added(self)

    @_on_itself
    def set_epoch(self, epoch: int) -> None:
        """Tell schedules that are counted in epochs, and rules that ask for it, the epoch, from 0.

        The learning rate of a group without a schedule is left alone, to torch's schedulers.
        """
        epoch = epoch_number(epoch)
        for group in self.param_groups:
            group["epoch"] = epoch
            self.apply_schedule(group)

    def apply_schedule(self, group: dict[str, Any]) -> None:
        """Set the learning rate of a group to what its schedule, if it has one, says it is now.

        The schedule starts from `scheduled_lr`; `initial_lr` belongs to torch's schedulers.
        """
        leaf, _ = self._leaves[group["optimizer"]]
        if leaf.has_schedule:
            self.write_rate(group, leaf.rate(group["scheduled_lr"], group["epoch"], group["updates"]))

    def write_rate(self, group: dict[str, Any], lr: float) -> None:
        """Set the learning rate of a group, of a tensor the number in it."""
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        elif lr != group["lr"]:
            group["lr"] = lr

    def settings(self, group: Mapping[str, Any], *, unscale: bool = False) -> Settings:
        """What the engine needs for the tensors of a group; values that no rule can run with are refused by name."""
        leaf, norms = self._leaves[group["optimizer"]]
        check_group(self, group, norms)
        return leaf.settings(group, norms, unscale=unscale, guard=self.skip_nonfinite)

    def shared_sums(self) -> dict[Reach, Sequence[Hashable]]:
        """The sums that all processes of a partition take part in, in one order for all of them."""
        if self.partition is None:
            return {}
        owners: dict[Any, None] = {}
        for key, (leaf, norms) in self._leaves.items():
            owners |= dict.fromkeys(norms)
            if any(g["optimizer"] == key and g["gradient_clip_norm"] is not None for g in self.param_groups):
                owners[leaf] = None
        return {self.partition: [*map(id, owners), *([GUARD] if self.skip_nonfinite else [])]}

    # -- layers by name ----------------------------------------------------------------------------

    @_on_itself
    def set(self, name: str, value: Any, layers: str | None = None) -> None:
        """Set a value, such as `set("lr", 1e-4, layers="head.*")`, for some layers or, without `layers`, for all.

        `layers` is a key as in a mapping: a name, a pattern, or a class. Layers keep what is set for them:
        a scheduler that writes the rate of their group does not reach them, and `unset` gives it back.
        `lr_scale` multiplies the rate, also one that a scheduler writes: `set("lr_scale", 0.65, layers="blocks.0")`.
        Kept in checkpoints; layers that are added later go by their group. Raises `ValueError` for values, and
        layers, that there are not.
        """
        key = by_layer.key_of(self, name)
        if layers is None:
            by_layer.set_everywhere(self, key, value)
        else:
            by_layer.set_for_layers(self, layers, key, value)

    @_on_itself
    def unset(self, name: str, layers: str) -> None:
        """Let layers go by the value of their group again."""
        key = by_layer.key_of(self, name)
        by_layer.override(self, layers, lambda own: {k: v for k, v in own.items() if k != key})

    @_on_itself
    def freeze(self, layers: str) -> None:
        """Leave layers as they are, their states too, whatever gradients they have; no norm counts these.

        The gradients are still computed: `requires_grad_(False)` on the parameters saves that as well.
        """
        by_layer.override(self, layers, lambda own: {**own, "frozen": True})

    @_on_itself
    def unfreeze(self, layers: str) -> None:
        """Update frozen layers again, from the states that they had."""
        by_layer.override(self, layers, lambda own: {k: v for k, v in own.items() if k != "frozen"})

    @_on_itself
    def add_layers(self, target: Any) -> None:
        """Take in the parameters of a module, or named parameters, that are new to this optimizer.

        Give the whole model, with its new layers: each new parameter goes to the group of the key that fits
        it, so that schedulers find the groups that they know. One that has the name of another takes its
        place, but not what was set for that. Raises `ValueError` where nothing is new.
        """
        by_layer.add_layers(self, target)

    def restart(self) -> None:
        """Make the plan of the next step anew."""
        self._stepper.watch(self)

    def _new_stepper(self) -> GroupStepper:
        return BackwardStepper() if self.in_backward else GroupStepper()

    # -- the step ----------------------------------------------------------------------------------

    @uncompiled
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update every parameter that has a gradient, once; returns the closure's loss if one is given."""
        if (
            _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
            or self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or torch._C._autograd._profiler_enabled()  # pyright: ignore[reportAttributeAccessIssue]
        ):
            return self._observed_step() if closure is None else self._observed_step(closure)
        return self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # so that torch does not wrap it: an unobserved step is quicker

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        if self.aside is not None:
            check_weights(self)
            self.aside = None
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._stepper.step(self)
        return loss

    @_on_itself
    def averaged(self, module: torch.nn.Module | None = None) -> AbstractContextManager[None]:
        """With `weight_average`: a context in which the model computes with the averages of its weights.

            with optimizer.averaged():
                accuracy = evaluate(model)

        The weights are kept aside, the averages rounded to nearest where they are wider. A model that is saved here
        has the averages; a checkpoint of the optimizer then has the weights too, and gives them back when it is
        loaded, after the model. Parameters without an average (frozen, or not updated yet) stay. `module` is the
        model, needed under `fully_shard` alone, where it may hold whole weights of before. Raises `RuntimeError`
        where there is no average, for a step or a load of the optimizer's in the context, and at its end where
        parameters were written to, as by loading the model: the weights of before are back then.
        """
        self._stepper.close(self)
        return averages_in_place(self, module)

    @property
    @_on_itself
    def skipped_steps(self) -> int:
        """How many steps were left out; for those that a device has left out by itself it is waited for."""
        return self._skipped + self._stepper.skipped()

    @skipped_steps.setter
    @_on_itself
    def skipped_steps(self, count: int) -> None:
        self._skipped = count - self._stepper.skipped()

    def skip(self, name: str | None) -> None:
        """Count a step that was left out, and note whose gradient was not finite, where that is known."""
        self._skipped += 1
        self.last_nonfinite = name

    _observed_step = observed(_step)
    zero_grad = _untraced(torch.optim.Optimizer.zero_grad)

    # -- state -------------------------------------------------------------------------------------

    @_on_itself
    def state_dict(self) -> dict[str, Any]:
        """Groups and states, as torch's own optimizers give them; in `averaged` also the weights that are aside.

        numpy's numbers in groups become Python's.
        """
        averaged = self.aside is not None and self.aside.standing
        if not averaged:
            check_weights(self)
        self._stepper.close(self)
        self._stepper.settle(self)
        try:
            packed = _untraced(torch.optim.Optimizer.state_dict)(self)
        except KeyError:
            check_held(self)
            raise
        states = {k: unwatched(state) if isinstance(state, Watched) else state for k, state in packed["state"].items()}
        groups = [{key: plain(value) for key, value in group.items()} for group in packed["param_groups"]]
        groups = [overrides.with_scale(group) if by_layer.has_value(self, group, SCALE) else group for group in groups]
        packed = packed | {"state": states, "param_groups": groups}
        return with_trained_weights(self, packed) if averaged else packed

    @_on_itself
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved state whole, by the names of parameters where known; `ValueError` where it does not fit.

        Tensors are copies, in the precision and layout that they were saved in. Raises `RuntimeError` in `averaged`.
        """
        if self.aside is not None and self.aside.standing:
            check_weights(self)
        state_dict = dict(state_dict) if isinstance(state_dict, dict) else state_dict  # hooks may write to it
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = hook(self, state_dict)
            state_dict = state_dict if replaced is None else replaced
        check_sizes((param for group in self.param_groups for param in group["params"]), "load_state_dict")
        taken = taken_up(self, state_dict)
        self.__setstate__({**taken, "aside": loaded_aside(taken["state"])})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but hooks, as torch has it, and what belongs to the memory at hand."""
        self._stepper.settle(self)
        own = {name: value for name, value in vars(self).items() if not (name in _NOT_KEPT or isroutine(value))}
        own["_skipped"] = self.skipped_steps
        return own | super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "_stepper" in vars(self):
            state = {"_skipped": self.skipped_steps, **state}
        elif "skipped_steps" in state:  # pickled whole by a version that had only this
            state = {"_skipped": state["skipped_steps"], **state}
        super().__setstate__(state)
        self.param_groups = list(self.param_groups)  # of a shallow copy, not the list of the original
        if "_stepper" in vars(self):
            self._stepper.release()
        self._storages = storages_of(self.param_groups)
        self._stepper = self._new_stepper()
        self._stepper.watch(self)
        for values in self.state.values():
            if isinstance(values, dict) and isinstance(values.get("step"), Tensor):
                mark_movable(values["step"])  # a copy that nobody else has
        if self.aside is not None and not self.aside.standing:
            give_back(self, self.aside)

    def table(self, *, full: bool = False) -> str:
        """What each layer goes by, as text: optimizer, size, bytes of state, key, rate, decay, what is set for it.

        The rate is the one that the layer steps by, times its `lr_scale`. Layers that are alike and numbered one
        after another are one row, as in `print(optimizer)`, unless `full`.
        """
        return table(rows_of(self, full=full), full=full)

    def __repr__(self) -> str:
        return self.table()
