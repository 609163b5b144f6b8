"""The torch.optim.Optimizer that `attach` returns: a described optimizer over the parameters of a model."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from neon.arguments import non_negative
from neon.engine.settings import Settings
from neon.optimizers.assignment import Match, assign, table
from neon.optimizers.multioptimizer import MultiOptimizer
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.schedules import Schedule, is_constant, rate
from neon.optimizers.sites import Site, module_sites, named_sites
from neon.optimizers.values import check_names
from neon.torch.checkpoint import named_parameters, taken_up
from neon.torch.stepper import GroupStepper


def _untraced(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of torch's without its guard against `torch.compile`, which takes a second to import."""

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        bare = method if "torch._dynamo" in sys.modules else getattr(method, "__wrapped__", method)
        return bare(*args, **kwargs)

    return call


class AttachedOptimizer(torch.optim.Optimizer):
    """What `Optimizer.attach(target)` returns: for schedulers, checkpoints and trainers a torch optimizer.

    `target` is a module, named parameters, parameters, or parameter groups (dicts with `params` and any
    of the rule's values under torch's names; `optimizer` names the key of a mapping that a group
    belongs to). Each key of a mapping becomes one group. Gradients are taken as they are.

    Raises `TypeError` or `ValueError` by name for targets, keys and values that do not fit.
    """

    def __init__(self, optimizer: Optimizer, target: Any) -> None:
        self.optimizer = optimizer
        self._leaves = optimizer.leaves()
        for key, (leaf, _) in self._leaves.items():
            if type(leaf).optimize is not Optimizer.optimize:
                raise TypeError(
                    f"{type(leaf).__name__} ({key}) has an optimize() of its own: it works on layer lists, by "
                    "optimize(layer_list, epoch). To attach it, write it as a rule: a static method "
                    "rule(w, g, *states, *, lr)."
                )
        self._assigned: list[tuple[Site, Match]] = []
        self._stepper = GroupStepper()
        defaults: dict[str, Any] = {}
        for leaf, _ in self._leaves.values():
            defaults = {**leaf.group(), **defaults}
        super().__init__(self._groups(target), defaults)

    # -- parameter groups --------------------------------------------------------------------------

    def _groups(self, target: Any) -> Any:
        """What `target` describes, as torch's constructor takes it."""
        if isinstance(target, nn.Module):
            return self._module_groups(target)
        if isinstance(target, (Tensor, Mapping, str)) or not isinstance(target, Iterable):
            raise TypeError(
                "attach takes a module, named parameters, parameters or a list of parameter groups. "
                f"Received: {type(target).__name__}."
            )
        given = list(target)
        if not isinstance(self.optimizer, MultiOptimizer):
            return given
        if given and all(isinstance(g, tuple) and len(g) == 2 and isinstance(g[0], str) for g in given):
            return self._site_groups(named_sites(given))
        groups: list[dict[str, Any]] = [g if isinstance(g, dict) else {"params": [g]} for g in given]
        used = {group.get("optimizer", self.optimizer.default_key) for group in groups}
        missing = [key for key in self._leaves if key not in used and key.rsplit("/", 1)[-1] != "default"]
        if missing:
            raise ValueError(
                f"MultiOptimizer: no group has the key{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}. "
                'Parameters without names cannot be matched: give each group its key, {"params": [...], "optimizer": '
                f"{missing[0]!r}}}, or attach a module or its named_parameters()."
            )
        return given

    def _module_groups(self, module: nn.Module) -> list[dict[str, Any]]:
        if any(torch.nn.parameter.is_lazy(p) for p in module.parameters()):
            raise ValueError(
                "The module has parameters without a size yet: its layers infer the number of inputs from the first "
                "batch. Run one forward pass, then attach."
            )
        return self._site_groups(list(module_sites(module)))

    def _site_groups(self, sites: list[Site]) -> list[dict[str, Any]]:
        """One group for each key in use, in the order of the mapping."""
        if isinstance(self.optimizer, MultiOptimizer):
            missing = self.optimizer.unmatched(sites)
            if missing:
                raise ValueError(self.optimizer.explain_unmatched(missing, sites))
        self._assigned = assign(self.optimizer, sites)
        groups: dict[str, list[tuple[str, Tensor]]] = {key: [] for key in self._leaves}
        for site, match in self._assigned:
            if site.param is not None and match.optimizer is not None:
                groups[match.key].append((site.names[0] if site.names else site.label, site.param))
        found = [{"params": params, "optimizer": key} for key, params in groups.items() if params]
        if not found:
            raise ValueError(
                "There is nothing to update: the target has no parameters, or its keys are all None (frozen). Give at "
                "least one key an optimizer."
            )
        return found

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; `optimizer` names the key of a mapping that it belongs to (`"default"`).

        The optimizer keeps a dict of its own: what is changed later is `param_groups[i]`, not the one given.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict. Received: {type(param_group).__name__}.")
        key = param_group.setdefault("optimizer", self.optimizer.default_key)
        if key not in self._leaves:
            raise ValueError(
                f"param_group['optimizer'] must be one of {', '.join(map(repr, self._leaves))}. Received: {key!r}."
            )
        check_names(param_group)
        leaf, norms = self._leaves[key]
        for name, value in leaf.group().items():
            param_group.setdefault(name, value)
        if norms:
            param_group.setdefault("outer_clip_norms", tuple(norm.gradient_clip_norm for norm in norms))
        if not is_constant(leaf.schedule):
            param_group.setdefault("initial_lr", param_group["lr"])
            param_group.setdefault("updates", 0)
        if self.param_groups:  # a group that is added in mid-run is in the same epoch
            param_group["epoch"] = self.param_groups[0]["epoch"]
        leaf.settings(param_group, norms)  # refuses values by name
        _untraced(torch.optim.Optimizer.add_param_group)(self, param_group)
        self.apply_schedule(self.param_groups[-1])
        self._stepper.watch(self)

    def set_epoch(self, epoch: int) -> None:
        """Tell schedules that are counted in epochs, and rules that ask for it, the epoch, from 0.

        The learning rate of a group without a schedule is left alone, to torch's schedulers.
        """
        non_negative("epoch", epoch)
        for group in self.param_groups:
            group["epoch"] = epoch
            self.apply_schedule(group)

    def schedule_of(self, group: Mapping[str, Any]) -> Schedule:
        """The schedule of a group's learning rate."""
        return self._leaves[group["optimizer"]][0].schedule

    def apply_schedule(self, group: dict[str, Any]) -> None:
        """Set the learning rate of a group to what its schedule, if it has one, says it is now."""
        schedule = self.schedule_of(group)
        if not is_constant(schedule):
            lr = rate(schedule, group["initial_lr"], group["epoch"], group["updates"])
            if lr != group["lr"]:
                group["lr"] = lr

    def settings(self, group: Mapping[str, Any]) -> Settings:
        """What the engine needs for the tensors of a group; values that no rule can run with are refused by name."""
        leaf, norms = self._leaves[group["optimizer"]]
        return leaf.settings(group, norms)

    # -- the step ----------------------------------------------------------------------------------

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
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._stepper.step(self)
        return loss

    _observed_step = torch.optim.Optimizer.profile_hook_step(_step)
    zero_grad = _untraced(torch.optim.Optimizer.zero_grad)

    # -- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Groups and states, as torch's own optimizers give them."""
        packed = _untraced(torch.optim.Optimizer.state_dict)(self)
        states = {key: dict(s) if isinstance(s, dict) else s for key, s in packed["state"].items()}
        return packed | {"state": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved state whole, by the names of parameters where known; `ValueError` where it does not fit.

        Tensors are copies, in the precision and layout that they were saved in.
        """
        state_dict = dict(state_dict) if isinstance(state_dict, dict) else state_dict  # hooks may write to it
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = hook(self, state_dict)
            state_dict = state_dict if replaced is None else replaced
        self.__setstate__(taken_up(self, state_dict))
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def __getstate__(self) -> dict[str, Any]:
        return {
            **super().__getstate__(),
            "optimizer": self.optimizer,
            "_leaves": self._leaves,
            "_assigned": self._assigned,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.param_groups = list(self.param_groups)  # of a shallow copy, not the list of the original
        self._stepper = GroupStepper()
        self._stepper.watch(self)

    def __repr__(self) -> str:
        sizes = {
            id(param): sum(v.numel() * v.element_size() for v in state.values() if isinstance(v, Tensor))
            for param, state in self.state.items()
        }
        known = {id(site.param) for site, _ in self._assigned}
        added = [
            (Site(name, "Parameter", (), (), param), Match((), self._leaves[group["optimizer"]][0]))
            for group in self.param_groups
            for name, param in named_parameters(group)
            if id(param) not in known
        ]
        return table([*self._assigned, *added], sizes)
