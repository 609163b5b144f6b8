"""What `attach` is given, as the parameter groups that torch's constructor takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neon.optimizers.assignment import Match, assign
from neon.optimizers.multioptimizer import MultiOptimizer
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.sites import Site, module_sites, named_sites

Assigned = list[tuple[Site, Match]]


def target_groups(description: Optimizer, target: Any) -> tuple[Any, Assigned]:
    """The groups of a module, (named) parameters or groups, and where the sites of it were assigned to."""
    if isinstance(target, nn.Module):
        if any(torch.nn.parameter.is_lazy(p) for p in target.parameters()):
            raise ValueError(
                "The module has parameters without a size yet: its layers infer the number of inputs from the first "
                "batch. Run one forward pass, then attach."
            )
        return _site_groups(description, list(module_sites(target)))
    if isinstance(target, (Tensor, Mapping, str)) or not isinstance(target, Iterable):
        raise TypeError(
            "attach takes a module, named parameters, parameters or a list of parameter groups. "
            f"Received: {type(target).__name__}."
        )
    given = list(target)
    if not isinstance(description, MultiOptimizer):
        return given, []
    if given and all(isinstance(g, tuple) and len(g) == 2 and isinstance(g[0], str) for g in given):
        return _site_groups(description, named_sites(given))
    groups: list[dict[str, Any]] = [g if isinstance(g, dict) else {"params": [g]} for g in given]
    used = {group.get("optimizer", description.default_key) for group in groups}
    missing = [key for key in description.leaves() if key not in used and key.rsplit("/", 1)[-1] != "default"]
    if missing:
        raise ValueError(
            f"MultiOptimizer: no group has the key{'s' * (len(missing) > 1)} {', '.join(map(repr, missing))}. "
            'Parameters without names cannot be matched: give each group its key, {"params": [...], "optimizer": '
            f"{missing[0]!r}}}, or attach a module or its named_parameters()."
        )
    return given, []


def _site_groups(description: Optimizer, sites: list[Site]) -> tuple[list[dict[str, Any]], Assigned]:
    """One group for each key in use, in the order of the mapping."""
    if isinstance(description, MultiOptimizer):
        missing = description.unmatched(sites)
        if missing:
            raise ValueError(description.explain_unmatched(missing, sites))
    assigned = assign(description, sites)
    groups: dict[str, list[tuple[str, Tensor]]] = {key: [] for key in description.leaves()}
    for site, match in assigned:
        if site.param is not None and match.optimizer is not None:
            groups[match.key].append((site_name(site), site.param))
    found = [{"params": params, "optimizer": key} for key, params in groups.items() if params]
    if not found:
        raise ValueError(
            "There is nothing to update: the target has no parameters, or its keys are all None (frozen). Give at "
            "least one key an optimizer."
        )
    return found, assigned


def site_name(site: Site) -> str:
    """The name that a group keeps for a parameter."""
    return site.names[0] if site.names else site.label


def name_alike(groups: list[dict[str, Any]], group: dict[str, Any]) -> None:
    """Give names to the parameters of a new group without, where other groups have some: torch wants all or none."""
    if not groups or "param_names" not in groups[0] or "param_names" in group or "params" not in group:
        return
    params = group["params"]
    if not isinstance(params, (set, str)):
        group["params"] = params = [params] if isinstance(params, Tensor) else [*params]
        if not any(isinstance(param, tuple) for param in params):
            group["params"] = [(f"group_{len(groups)}.{place}", param) for place, param in enumerate(params)]
