"""The torch.optim.Optimizer that `attach` returns: a described optimizer over the parameters of a model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from operator import is_, itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from neon.arguments import non_negative
from neon.engine.batch import Item, Settings
from neon.engine.plan import Plan
from neon.optimizers.assignment import Match, assign, table
from neon.optimizers.multioptimizer import MultiOptimizer
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.schedules import counts_steps, is_constant, rate
from neon.optimizers.sites import Site, module_sites, named_sites
from neon.optimizers.stepper import new_states
from neon.optimizers.values import check_names
from neon.torch.checkpoint import check_checkpoint, named_parameters


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
        self._plan: Plan | None = None
        self._lock = threading.Lock()
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
        """Add a group; `optimizer` names the key of a mapping that it belongs to (`"default"`)."""
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
            param_group.setdefault("outer_clip_norms", [norm.gradient_clip_norm for norm in norms])
        if not is_constant(leaf.schedule):
            param_group.setdefault("initial_lr", param_group["lr"])
            param_group.setdefault("updates", 0)
        if self.param_groups:  # a group that is added in mid-run is in the same epoch
            param_group["epoch"] = self.param_groups[0]["epoch"]
        leaf.settings(param_group, norms)  # refuses values by name
        super().add_param_group(param_group)
        self._schedule(self.param_groups[-1])
        self._plan = None

    def set_epoch(self, epoch: int) -> None:
        """Tell schedules that are counted in epochs, and rules that ask for it, the epoch, from 0.

        The learning rate of a group without a schedule is left alone, to torch's schedulers.
        """
        non_negative("epoch", epoch)
        for group in self.param_groups:
            group["epoch"] = epoch
            self._schedule(group)

    def _schedule(self, group: dict[str, Any]) -> None:
        schedule = self._leaves[group["optimizer"]][0].schedule
        if not is_constant(schedule):
            group["lr"] = rate(schedule, group["initial_lr"], group["epoch"], group["updates"])

    # -- the step ----------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Update every parameter that has a gradient, once; returns the closure's loss if one is given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with self._lock:
            self._update()
        return loss

    def _update(self) -> None:
        for group in self.param_groups:
            if "updates" in group and counts_steps(self._leaves[group["optimizer"]][0].schedule):
                self._schedule(group)
        every = [param for group in self.param_groups for param in group["params"]]
        found = [param.grad for param in every]
        params = [param for param, grad in zip(every, found, strict=True) if grad is not None]
        grads = [grad for grad in found if grad is not None]
        if self._plan is None or not self._still_holds(params, grads):
            self._make_plan(params, grads)
        assert self._plan is not None
        self._plan.step(grads)
        for group in self.param_groups:
            if "updates" in group:
                group["updates"] += 1

    def _still_holds(self, params: list[Tensor], grads: list[Tensor]) -> bool:
        """Whether the plan still describes the groups, their tensors and states."""
        assert self._plan is not None
        if len(self._seen) != len(self.param_groups):
            return False
        if len(self.state) != len(self._kept) or not all(map(is_, self.state.values(), self._kept)):
            return False
        for place, group in enumerate(self.param_groups):
            reader, seen, size = self._seen[place]
            if len(group["params"]) != size or self._plan.settings[place].values is not group:
                return False
            values = reader(group)
            if values != seen:
                settings, planned = self._settings(group), self._plan.settings[place]
                same = (settings.program, settings.width, settings.seed) == (
                    planned.program,
                    planned.width,
                    planned.seed,
                )
                if not same or settings.scopes != planned.scopes:
                    return False
                self._seen[place] = (reader, values, size)
        if not all(map(is_, [state.get("step") for state, _ in self._slots], self._counts)):
            return False
        states = [state.get(name) for state, names in self._slots for name in names]
        return self._plan.holds(params, states, grads)

    def _make_plan(self, params: list[Tensor], grads: list[Tensor]) -> None:
        settings = [self._settings(group) for group in self.param_groups]
        places = {
            param: (place, name)
            for place, group in enumerate(self.param_groups)
            for name, param in named_parameters(group)
        }
        orders = {param: order for order, param in enumerate(places)}
        items, slots = [], []
        for param in params:
            place, name = places[param]
            names = tuple(settings[place].program.states)
            kept = self.state.get(param, {})
            states = [kept[n] for n in names] if all(n in kept for n in names) else None
            states = new_states(settings[place].program, name, param) if states is None else states
            items.append(Item(name, param, states, kept.get("step", torch.tensor(0.0)), place, orders[param]))
            slots.append(names)
        plan = Plan(items, grads, settings)
        # Nothing was refused: only now are states put in place.
        for item, step, names in zip(items, plan.steps, slots, strict=True):
            self.state[item.param].update({"step": step, **dict(zip(names, item.states, strict=True))})
        self._slots = [(self.state[item.param], names) for item, names in zip(items, slots, strict=True)]
        self._kept = list(self.state.values())
        self._counts = [state["step"] for state, _ in self._slots]
        self._seen = []
        for group in self.param_groups:
            reader = itemgetter(*(key for key in group if key not in ("params", "param_names")))
            self._seen.append((reader, reader(group), len(group["params"])))
        self._plan = plan

    def _settings(self, group: dict[str, Any]) -> Settings:
        leaf, norms = self._leaves[group["optimizer"]]
        return leaf.settings(group, norms)

    # -- state -------------------------------------------------------------------------------------

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up a saved state; floating-point states keep the precision they were saved in."""
        states = [tuple(self._settings(group).program.states) for group in self.param_groups]
        check_checkpoint(state_dict, self.param_groups, states)
        before = [dict(group) for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, values in zip(self.param_groups, before, strict=True):
            for name, value in values.items():  # a checkpoint of torch's own rule has no word of our options
                group.setdefault(name, value)
        saved_ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        params = [p for group in self.param_groups for p in group["params"]]
        for number, param in zip(saved_ids, params, strict=True):
            for name, value in state_dict["state"].get(number, {}).items():
                loaded = self.state[param].get(name)
                if isinstance(loaded, Tensor) and loaded.dtype != value.dtype:
                    self.state[param][name] = value.detach().clone().to(param.device)
        self._plan = None

    def __getstate__(self) -> dict[str, Any]:
        return {
            **super().__getstate__(),
            "optimizer": self.optimizer,
            "_leaves": self._leaves,
            "_assigned": self._assigned,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._plan = None
        self._lock = threading.Lock()

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
