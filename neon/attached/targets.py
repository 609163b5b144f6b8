"""What `attach` is given, as the parameter groups that torch's constructor takes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neon.assignment.description import Description
from neon.assignment.keys import Match, assign
from neon.assignment.param_list import is_plain
from neon.assignment.roles import with_roles
from neon.assignment.sites import Site, module_sites, named_sites, site_name
from neon.assignment.unmatched import explain_unmatched
from neon.engine.tensors.overlap import sharing
from neon.engine.versions import warn_of_set
from neon.messages import listed, shortened
from neon.stepping.group_names import named_parameters

Assigned = list[tuple[Site, Match]]


def target_groups(description: Description, target: Any) -> tuple[Any, Assigned]:
    """The groups of a module, (named) parameters or groups, and where the sites of it were assigned to."""
    if isinstance(target, nn.Module):
        if any(torch.nn.parameter.is_lazy(p) for p in target.parameters()):
            raise ValueError(
                "The module has parameters without a size yet: its layers infer the number of inputs from the first "
                "batch. Run one forward pass, then attach."
            )
        return _site_groups(description, with_roles(module_sites(target)))
    if isinstance(target, (Tensor, Mapping, str)) or not isinstance(target, Iterable):
        raise TypeError(
            "attach takes a module, named parameters, parameters or a list of parameter groups. "
            f"Received: {type(target).__name__}."
        )
    warn_of_set(target)
    given = list(target)
    if description._optimizers_by_key is None:
        return given, []
    if given and all(isinstance(g, tuple) and len(g) == 2 and isinstance(g[0], str) for g in given):
        return _site_groups(description, named_sites(given))
    groups: list[dict[str, Any]] = [g if isinstance(g, dict) else {"params": [g]} for g in given]
    used = {group.get("optimizer", description.default_key) for group in groups}
    missing = [key for key in description.leaves() if key not in used and key.rsplit("/", 1)[-1] != "default"]
    if missing:
        raise ValueError(
            f"MultiOptimizer: no group has the key{'s' * (len(missing) > 1)} {listed(map(repr, missing), 80)}. "
            'Parameters without names cannot be matched: give each group its key, {"params": [...], "optimizer": '
            f"{shortened(missing[0])!r}}}, or attach a module or its named_parameters()."
        )
    return given, []


def _site_groups(description: Description, sites: list[Site]) -> tuple[list[dict[str, Any]], Assigned]:
    """One group for each key in use, in the order of the mapping."""
    if description._optimizers_by_key is not None:
        problem = explain_unmatched(description, sites)
        if problem:
            raise ValueError(problem)
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


def check_apart(named: Iterable[tuple[str, Tensor]]) -> None:
    """Refuse two parameters over one memory, of which each would be updated: what is one parameter is one object.

    Memory is asked of plain tensors alone: the address of a DTensor, of a freed or an empty tensor says nothing.
    """
    distinct = {id(param): (name, param) for name, param in named}  # one listed twice is refused when it is stepped
    trained = [(name, param) for name, param in distinct.values() if param.requires_grad and is_plain(param)]
    shared = sharing([param for _, param in trained])
    if shared:
        first, second = (shortened(trained[at][0], 100) for at in sorted(shared))
        raise ValueError(
            f"Parameters {first!r} and {second!r} are two over one memory: each would be updated by its own gradient. "
            "Give both layers the same Parameter (b.weight = a.weight, without .data), or each a clone of its own."
        )


def check_groups(groups: Iterable[Mapping[str, Any]]) -> None:
    """The same of the parameters of groups."""
    check_apart(named for group in groups for named in named_parameters(group))


def storages_of(groups: Iterable[Mapping[str, Any]]) -> set[int]:
    """Where the memory of the parameters of groups begins, as far as that is known."""
    return {p.untyped_storage().data_ptr() for group in groups for p in group["params"] if is_plain(p)}


def check_added(groups: list[dict[str, Any]], known: set[int]) -> None:
    """The same after a group has been added, which is taken away again where it is refused.

    `known` are the addresses of storages of all parameters before, to which those of the group are added: only
    where one is there already is everything compared.
    """
    storages = storages_of(groups[-1:])
    if storages & known or len(storages) < len(groups[-1]["params"]):
        try:
            check_groups(groups)
        except ValueError:
            groups.pop()
            raise
    known |= storages


def name_alike(groups: list[dict[str, Any]], group: dict[str, Any]) -> None:
    """Give names to the parameters of a new group without, where other groups have some: torch wants all or none."""
    if not groups or "param_names" not in groups[0] or "param_names" in group or "params" not in group:
        return
    params = group["params"]
    if not isinstance(params, (set, str)):
        group["params"] = params = [params] if isinstance(params, Tensor) else [*params]
        if not any(isinstance(param, tuple) for param in params):
            group["params"] = [(f"group_{len(groups)}.{place}", param) for place, param in enumerate(params)]
