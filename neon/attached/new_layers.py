"""Layers that are new to an attached optimizer: each parameter goes to the group of the key that fits it."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.optim import Optimizer

from neon.assignment.description import Description
from neon.assignment.keys import Match, assign
from neon.assignment.matrix_checks import check_matrices
from neon.assignment.roles import with_roles
from neon.assignment.sites import Site, module_sites, named_sites, site_name
from neon.assignment.wrappers import bare_names
from neon.attached.targets import Assigned, check_apart
from neon.messages import shortened
from neon.stepping.group_names import has_names, named_parameters
from neon.stepping.overrides import KEY, as_text, of_group, overrides_of


def add_layers(optimizer: Optimizer, description: Description, assigned: Assigned, target: Any) -> Assigned:
    """Take in the parameters of a target that are new, each into the group of its key.

    Gives where all sites are assigned to, of which `assigned` were known before.
    """
    if not all(map(has_names, optimizer.param_groups)):
        raise ValueError(
            "Nothing can be added to parameters that have no names: attach a module or its named_parameters()."
        )
    sites = with_roles(module_sites(target)) if isinstance(target, nn.Module) else named_sites(target)
    held = {id(param) for group in optimizer.param_groups for param in group["params"]}
    now = assign(description, sites)
    new = [
        (site, match)
        for site, match in now
        if site.param is not None and match.optimizer is not None and id(site.param) not in held
    ]
    if not new:
        raise ValueError("There is nothing to add: the optimizer has every parameter of the target that is not frozen.")
    for site, _ in new:
        if site.param is not None and not site.param.is_leaf:
            raise ValueError(
                f"Parameter {shortened(site_name(site))!r} is not a leaf of the graph: an optimizer cannot update it."
            )
    check_matrices(new)
    replaced = _replaced(optimizer, sites, new)
    leaving = {id(old.param) for old in replaced.values()}
    others = [(n, p) for group in optimizer.param_groups for n, p in named_parameters(group) if id(p) not in leaving]
    check_apart([*others, *((site_name(site), site.param) for site, _ in new if site.param is not None)])
    for site, match in new:
        _add(optimizer, site, match, replaced.get(id(site.param)))
    staying = [entry for entry in assigned if entry[0].param is None or id(entry[0].param) not in leaving]
    return _listed_again(staying, now, whole=isinstance(target, nn.Module))


def _listed_again(before: Assigned, now: Assigned, *, whole: bool) -> Assigned:
    """Where all sites are assigned to, in the order of a model; what is known of a parameter stays."""
    known = {id(site.param): (site, match) for site, match in before if site.param is not None}
    now = [known.pop(id(site.param), (site, match)) for site, match in now]
    without = [] if whole else [entry for entry in before if entry[0].param is None]
    return [*known.values(), *without, *now]


class _Old(NamedTuple):
    """A parameter in whose place another comes."""

    group: dict[str, Any]
    name: str
    param: Tensor


def _replaced(optimizer: Optimizer, sites: list[Site], new: Assigned) -> dict[int, _Old]:
    """What stands under the names of new parameters, by the ids of these; wrappers around either do not matter."""
    listed = [_Old(group, *named) for group in optimizer.param_groups for named in named_parameters(group)]
    by_name = dict(zip(bare_names([old.name for old in listed]), listed, strict=True))
    names = list(dict.fromkeys(site_name(site) for site in sites if site.param is not None))
    bare = dict(zip(names, bare_names(names), strict=True))
    found = ((site.param, by_name.get(bare[site_name(site)])) for site, _ in new)
    return {id(param): old for param, old in found if old is not None}


def _add(optimizer: Optimizer, site: Site, match: Match, old: _Old | None) -> None:
    name, param = old.name if old else site_name(site), site.param
    if old:  # a layer in the place of another
        _remove(optimizer, old)
    of_key = [group for group in optimizer.param_groups if group["optimizer"] == match.key]
    if of_key:
        of_key[0]["params"].append(param)
        of_key[0]["param_names"].append(name)
    else:
        optimizer.add_param_group({"params": [(name, param)], "optimizer": match.key})


def _remove(optimizer: Optimizer, old: _Old) -> None:
    group, place = old.group, [param is old.param for param in old.group["params"]].index(True)
    del group["params"][place], group["param_names"][place]
    staying = {other: own for other, own in overrides_of(group).items() if other != old.name}
    group[KEY] = as_text(staying, of_group(group))
    optimizer.state.pop(old.param, None)
