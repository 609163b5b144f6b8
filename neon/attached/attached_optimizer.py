"""The torch.optim.Optimizer that `attach` returns: a described optimizer over the parameters of a model."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from inspect import isroutine
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from neon.arguments import clip_bound, epoch_number, flag, plain
from neon.assignment.description import Description
from neon.assignment.matrix_checks import check_matrices
from neon.assignment.printed_table import table
from neon.attached.audited import Audited
from neon.attached.checkpoint import check_held, loaded
from neon.attached.evaluated import loaded_aside, views, with_trained_weights
from neon.attached.matrix_groups import by_name, check_group_matrices, check_keys_of_parts
from neon.attached.new_layers import add_layers
from neon.attached.observed import UnlessWrapped, observed, on_itself, untraced
from neon.attached.pickled import of_this_version
from neon.attached.printed import rows_of
from neon.attached.targets import check_added, check_groups, name_alike, storages_of, target_groups
from neon.engine.backends import serving
from neon.engine.counts import mark_movable
from neon.engine.program.options import DECAY, SCALE
from neon.engine.refusals.combinations import check_sharing, check_sizes
from neon.engine.refusals.tensors import check_capturable, check_once
from neon.engine.steady_source import CHANGED, DONE
from neon.engine.versions import uncompiled
from neon.statistics.asked import Statistics, asked
from neon.stepping import overrides
from neon.stepping.aside import Aside
from neon.stepping.group_names import named_parameters
from neon.stepping.group_rules import GroupRules
from neon.stepping.groups import GroupStepper
from neon.stepping.in_backward import BackwardStepper, refuse_replicas
from neon.stepping.in_place import refuse_in_place, way_in_place
from neon.stepping.looking import Looking
from neon.stepping.sharding import Partition, local, replicas
from neon.stepping.watched import Watched, unwatched

# Of an instance, what copies do not take along: hooks, which torch leaves out too, and what a GradScaler has put there.
_NOT_KEPT = {"_stepper", "_looking", "_storages", "grad_scale", "found_inf"}
_NOT_KEPT |= {f"_optimizer_{kind}_hooks" for kind in (
    "step_pre", "step_post", "state_dict_pre", "state_dict_post", "load_state_dict_pre", "load_state_dict_post",
)}  # fmt: skip


def _asked(name: str) -> Any:
    """What the optimizer was asked for, to be read."""
    return property(on_itself(lambda self: getattr(self._rules, name)))


class AttachedOptimizer(Audited):
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
    - `norms_in_backward`: where gradients are clipped by norm, or `skip_nonfinite` looks through them, large ones (of
      524,288 to 8,388,608 elements) are summed as they arrive in the backward pass, while caches have them: the step
      reads them once, with the same bits. Another gradient, or one that was written to since, is summed in the step;
      so are all on devices, in DTensors, under a `GradScaler`, once there is a process group, and where a rule's first
      pass reads more than gradients. They must not be changed behind autograd's back, as through `.data` or numpy:
      where that is found out, a `RuntimeWarning` names a parameter.
    - `capturable`: steps can be captured in a graph of the device (`torch.cuda.graph`). Step counts lie on the
      device, and values of groups that are tensors, such as `lr`, are read there, at each replay. For
      parameters on one device that Triton serves.
    - `statistics`: True has each step looked at, N those whose number N divides, `neon.statistics.Statistics` also says
      of which layers: what `statistics()` gives is summed in the pass that updates.
    - `audit`: the first hundred steps are watched for what is silently wrong, and an `AuditWarning` says once, at the
      first and at the hundredth, what that is; see `audit()`. Nothing is done afterwards, and other processes are not
      asked.
    - `share_matrices`: where all processes of the default group have all parameters and the same gradients, as under
      `DistributedDataParallel`, each of them makes a part of what a rule calls functions of matrices for, and has the
      others know: the bits are the same as without.

    Raises `TypeError` or `ValueError` by name for targets, keys and values that do not fit.
    """

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
        share_matrices: bool = False,
        norms_in_backward: bool = False,
        statistics: bool | int | Statistics = False,
        audit: bool = True,
    ) -> None:
        # Not called `optimizer`: trainers take that for what a wrapper of theirs wraps.
        self.description = description
        self._statistics = asked(statistics)
        if flag("in_backward", in_backward):
            refuse_replicas(target)
        self._rules = rules = GroupRules(
            description,
            flag("skip_nonfinite", skip_nonfinite),
            Partition() if flag("partitioned", partitioned) else None,
            in_backward,
            flag("capturable", capturable),
            clip_bound("gradient_clip_previous_norm", gradient_clip_previous_norm, norm=True),
            replicas() if flag("share_matrices", share_matrices) else None,
            flag("norms_in_backward", norms_in_backward),
            self._statistics is not None,
        )
        self._skipped = 0
        self.last_nonfinite: str | None = None
        self._aside = Aside()
        self._module = weakref.ref(target) if isinstance(target, torch.nn.Module) else None
        groups, self._assigned = target_groups(description, target)
        check_matrices(self._assigned)
        rules.know(by_name(self._assigned))
        defaults: dict[str, Any] = {}
        for leaf in rules.leaves:
            defaults = {**leaf.group(), **defaults}
        del defaults["epoch"]  # no argument of any class; each group has its own
        for own in (SCALE, DECAY):
            defaults.pop(own, None)  # torch would give it to groups whose rule has no rate, or another form
        super().__init__(groups, defaults)
        check_groups(self.param_groups)
        check_keys_of_parts(rules, self.param_groups)
        if rules.sharers is not None:
            check_sharing(program for group in self.param_groups for program in rules.settings(group).programs)
        self._begin()
        self._check_layers_seen()
        self._watch_first_steps(watched=flag("audit", audit))
        if rules.capturable:
            for device in {param.device for group in self.param_groups for param in group["params"]}:
                check_capturable(device, serving(device).capturable)

    # What it was asked for as a whole.
    skip_nonfinite, in_backward, capturable = map(_asked, ("skip_nonfinite", "in_backward", "capturable"))

    # -- parameter groups --------------------------------------------------------------------------

    @on_itself
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
        param_group.setdefault("optimizer", self.description.default_key)
        self._rules.check_new(param_group)
        self._rules.fill(param_group, self.param_groups)
        param_group.setdefault(overrides.KEY, overrides.NONE)
        if self.param_groups:  # a group that is added in mid-run is in the same epoch
            param_group["epoch"] = self.param_groups[0]["epoch"]
        self._rules.settings(param_group)  # refuses values by name
        name_alike(self.param_groups, param_group)
        untraced(torch.optim.Optimizer.add_param_group)(self, param_group)
        try:
            self._rules.settings(self.param_groups[-1])  # now that there is a list of parameters
            check_group_matrices(self._rules, self.param_groups[-1])
            if self.in_backward:
                check_sizes(self.param_groups[-1]["params"], "in_backward=True")
                check_once(named_parameters(self.param_groups[-1]))
        except ValueError:
            self.param_groups.pop()
            raise
        self._rules.apply_schedule(self.param_groups[-1])
        if "_stepper" in vars(self):  # when all groups of the constructor are there
            check_added(self.param_groups, self._storages)
            self._stepper.added(self)

    @on_itself
    def set_epoch(self, epoch: int) -> None:
        """Tell schedules that are counted in epochs, and rules that ask for it, the epoch, from 0.

        The learning rate of a group without a schedule is left alone, to torch's schedulers.
        """
        epoch = epoch_number(epoch)
        self._rules.apply_schedule(*self.param_groups, epoch=epoch)
        for group in self.param_groups:
            group["epoch"] = epoch

    # -- layers by name ----------------------------------------------------------------------------

    @on_itself
    def set(self, name: str, value: Any, layers: str | None = None) -> None:
        """Set a value, such as `set("lr", 1e-4, layers="head.*")`, for some layers or, without `layers`, for all.

        `layers` is a key as in a mapping: a name, a pattern, or a class. Layers keep what is set for them:
        a scheduler that writes the rate of their group does not reach them, and `unset` gives it back.
        `lr_scale` multiplies the rate, also one that a scheduler writes: `set("lr_scale", 0.65, layers="blocks.0")`.
        Kept in checkpoints; layers that are added later go by their group. Raises `ValueError` for values, and
        layers, that there are not.
        """
        known = self._layers()
        key = known.key_of(name)
        if layers is None:
            known.set_everywhere(key, value)
        else:
            known.set_for(layers, key, value)
            self._restart()

    @on_itself
    def unset(self, name: str, layers: str) -> None:
        """Let layers go by the value of their group again."""
        key = self._layers().key_of(name)
        self._override(layers, lambda own: {k: v for k, v in own.items() if k != key})

    @on_itself
    def freeze(self, layers: str) -> None:
        """Leave layers as they are, their states too, whatever gradients they have; no norm counts these.

        The gradients are still computed: `requires_grad_(False)` on the parameters saves that as well.
        """
        self._override(layers, lambda own: {**own, "frozen": True})

    @on_itself
    def unfreeze(self, layers: str) -> None:
        """Update frozen layers again, from the states that they had."""
        self._override(layers, lambda own: {k: v for k, v in own.items() if k != "frozen"})

    @on_itself
    def add_layers(self, target: Any) -> None:
        """Take in the parameters of a module, or named parameters, that are new to this optimizer.

        Give the whole model, with its new layers: each new parameter goes to the group of the key that fits
        it, so that schedulers find the groups that they know. One that has the name of another takes its
        place, but not what was set for that. Raises `ValueError` where nothing is new.
        """
        self._assigned = add_layers(self, self.description, self._assigned, target)
        self._rules.know(by_name(self._assigned))
        self._restart()

    def _override(self, layers: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._layers().override(layers, change)
        self._restart()

    def _restart(self) -> None:
        """Make the plan of the next step anew."""
        self._stepper.watch(self)

    def _begin(self) -> None:
        """Have a stepper that knows nothing yet."""
        self._storages = storages_of(self.param_groups)
        stepper = BackwardStepper(self._rules, self._aside) if self._rules.in_backward else GroupStepper(self._rules)
        self._looking = stepper.looking = None if self._statistics is None else Looking(self._statistics.every)
        self._stepper = stepper
        stepper.watch(self)
        # In a dict that shares its keys with those of other instances CPython 3.11 finds attributes slowly, each time.
        self.__dict__ = dict(self.__dict__)

    # -- the step ----------------------------------------------------------------------------------

    @uncompiled
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update every parameter that has a gradient, once; returns the closure's loss if one is given."""
        if self._first_steps is not None and self._first_steps.is_due():
            return self._watched(partial(self._itself, closure))
        looking = self._looking
        steady = None if looking is not None and not looking.left else self._stepper.steady.call
        if steady is not None and closure is None and "found_inf" not in self.__dict__:
            given = (
                self.param_groups, self.state, self._optimizer_step_pre_hooks, self._optimizer_step_post_hooks,
                self._aside.given,
            )  # fmt: skip
            done = steady(*given)
            if done == DONE or (done == CHANGED and self._stepper.renew() and steady(*given) == DONE):
                if looking is not None:
                    looking.left -= 1
                return None
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
    _itself = step  # whatever others put in its place

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        if self._aside.in_place is not None or self._aside.given:
            self._aside.check_step()
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
            self._aside.check()  # the closure may have called eval
        if way := way_in_place(param for group in self.param_groups for param in map(local, group["params"])):
            refuse_in_place(way)  # another optimizer's
        left_out = self._stepper.step(self)
        if left_out is not None:
            self._skipped += 1
            self.last_nonfinite = left_out.name
        return loss

    @property
    @on_itself
    def skipped_steps(self) -> int:
        """How many steps were left out; for those that a device has left out by itself it is waited for."""
        return self._skipped + self._stepper.skipped

    @skipped_steps.setter
    @on_itself
    def skipped_steps(self, count: int) -> None:
        self._skipped = count - self._stepper.skipped

    _observed_step = observed(_step)
    zero_grad = untraced(torch.optim.Optimizer.zero_grad)

    # -- state -------------------------------------------------------------------------------------

    @on_itself
    def state_dict(self) -> dict[str, Any]:
        """Groups and states, as torch's own optimizers give them; in evaluation also the weights that are aside.

        numpy's numbers in groups become Python's.
        """
        evaluated = self._aside.in_place is not None
        if not evaluated:
            self._aside.check()
        self._stepper.close(self)
        self._stepper.write_counts(self)
        try:
            packed = untraced(torch.optim.Optimizer.state_dict)(self)
        except KeyError:
            check_held(self)
            raise
        states = {k: unwatched(state) if isinstance(state, Watched) else state for k, state in packed["state"].items()}
        groups = [{key: plain(value) for key, value in group.items()} for group in packed["param_groups"]]
        groups = [g | {name: float(g[name]) for name in self._rules.numbers_kept(g) if name in g} for g in groups]
        groups = [overrides.with_scale(group) if self._rules.has_value(group, SCALE) else group for group in groups]
        packed = packed | {"state": states, "param_groups": groups}
        return with_trained_weights(self.param_groups, self._aside.weights, packed) if evaluated else packed

    @on_itself
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a saved state whole, by the names of parameters where known; `ValueError` where it does not fit.

        Tensors are copies, in the precision and layout that they were saved in. Raises `RuntimeError` in evaluation.
        """
        if self._aside.in_place is not None:
            self._aside.check()
        state_dict = dict(state_dict) if isinstance(state_dict, dict) else state_dict  # hooks may write to it
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = hook(self, state_dict)
            state_dict = state_dict if replaced is None else replaced
        check_sizes((param for group in self.param_groups for param in group["params"]), "load_state_dict")
        found = loaded(self, self._rules, state_dict)
        self.__setstate__({**found, "_aside": loaded_aside(found["state"])})
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but hooks, as torch has it, and what belongs to the memory at hand."""
        self._stepper.write_counts(self)
        own = {name: value for name, value in vars(self).items() if not (name in _NOT_KEPT or isroutine(value))}
        own |= {"_skipped": self.skipped_steps, "_module": None}  # who copies may have copied the module too
        own |= {"_first_steps": None, "_record": None}
        return own | super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = {"_skipped": self.skipped_steps, **state} if "_stepper" in vars(self) else of_this_version(state)
        super().__setstate__(state)
        self._rules.know(by_name(self._assigned))  # which earlier versions did not
        self.param_groups = list(self.param_groups)  # of a shallow copy, not the list of the original
        if "_stepper" in vars(self):
            self._stepper.release()
        self._begin()
        for values in self.state.values():
            if isinstance(values, dict) and isinstance(values.get("step"), Tensor):
                mark_movable(values["step"])  # a copy that nobody else has
        if self._aside.in_place is None:
            self._aside.give_back(lambda: views(self, self._rules))

    def table(self, *, full: bool = False) -> str:
        """What each layer goes by, as text: optimizer, size, bytes of state, key, rate, decay, what is set for it.

        The rate is the one that the layer steps by, times its `lr_scale`. Layers that are alike and numbered one
        after another are one row, as in `print(optimizer)`, unless `full`.
        """
        return table(rows_of(self, self._rules, self._assigned, full=full), full=full)

    def __repr__(self) -> str:
        return self.table()
