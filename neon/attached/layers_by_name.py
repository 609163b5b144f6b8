"""Layers of an attached optimizer by name: values of their own, frozen ones, new ones."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn

from neon.arguments import plain, state_format
from neon.assignment.keys import Match, assign, strongest_key
from neon.assignment.sites import Site, module_sites, named_sites
from neon.assignment.unmatched import what_there_is
from neon.assignment.wrappers import bare_names
from neon.attached.checkpoint import has_names, named_parameters
from neon.attached.targets import check_apart, site_name
from neon.engine.program.options import SCALE
from neon.messages import kind_of, listed, shortened
from neon.stepping.overrides import KEY, as_text, of_group, overrides_of

if TYPE_CHECKING:
    from neon.attached.attached_optimizer import AttachedOptimizer

# What a group holds that is not for a layer to have another of.
_NOT_FOR_LAYERS = {"params", "param_names", "optimizer", KEY, "epoch", "updates", "initial_lr", "scheduled_lr",
                   "previous_norm"}  # fmt: skip

Values = dict[str, Any]


def key_of(optimizer: AttachedOptimizer, name: str) -> str:
    """What groups call a value; `ValueError` for what is no value of any group."""
    keys = {key for group in optimizer.param_groups for key in (*group, SCALE) if has_value(optimizer, group, key)}
    keys -= _NOT_FOR_LAYERS
    names = {_word(key): key for key in keys}
    if name not in names:
        raise ValueError(
            f"No parameter group has a value {shortened(name)!r}. Their values: {listed(sorted(names), 350)}."
        )
    return names[name]


def _word(key: str) -> str:
    """What a value of a group is called by `set`."""
    return "lr_scale" if key == SCALE else key


def set_everywhere(optimizer: AttachedOptimizer, name: str, value: Any) -> None:
    """Set a value of every group that has it; of a rate with a schedule, the one that it starts from."""
    value = plain(value)
    groups = [group for group in optimizer.param_groups if has_value(optimizer, group, name)]
    for group in groups:
        optimizer.settings(ChainMap({name: value}, group))  # refuses values by name, before any is set
    for group in groups:
        group[name] = value.clone() if isinstance(value, Tensor) else value  # schedulers write into tensors
        if name == "lr" and "updates" in group:
            group["scheduled_lr"] = float(value)
            optimizer.apply_schedule(group)


def set_for_layers(optimizer: AttachedOptimizer, layers: str, name: str, value: Any) -> None:
    """Set a value for the layers that fit and whose group has such a value."""
    if name == "gradient_clip_norm" and optimizer.partition is not None:
        raise ValueError(
            "gradient_clip_norm cannot be set for layers with partitioned=True: processes that hold none of them would "
            "not know of the norm. Set it without layers, or give the layers a key of their own in a MultiOptimizer."
        )
    kept = state_format(name, value) if name == "state_dtype" else _kept(value)
    override(optimizer, layers, lambda own: {**own, name: kept}, name)


def _kept(value: Any) -> Any:
    """A value as layers keep it: with numbers in the place of tensors, whose changes nobody would notice."""
    if isinstance(value := plain(value), (tuple, list)):
        return tuple(map(_kept, value))
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def override(
    optimizer: AttachedOptimizer, layers: str, change: Callable[[Values], Values], name: str = "params"
) -> None:
    """Change the values that layers have of their own, in all parameters that fit or, refused, in none.

    Groups without a value of this name are left out.
    """
    fitting = _fitting(optimizer, layers)
    found = {p: names for p, names in fitting.items() if _goes_by(optimizer, optimizer.param_groups[p], name)}
    if not found:
        keys = listed(dict.fromkeys(repr(optimizer.param_groups[place]["optimizer"]) for place in fitting))
        raise ValueError(
            f"The layers that layers={shortened(layers)!r} fits belong to {keys}, which has no value {_word(name)!r}."
        )
    changed: dict[int, dict[str, Values]] = {}
    for place, names in found.items():
        group = optimizer.param_groups[place]
        overrides = overrides_of(group)
        for param in names:
            overrides[param] = change(overrides.get(param, {}))
            optimizer.settings(ChainMap(overrides[param], group))
        changed[place] = overrides
    texts = {p: as_text(overrides, of_group(optimizer.param_groups[p])) for p, overrides in changed.items()}
    for place, text in texts.items():
        optimizer.param_groups[place][KEY] = text
    optimizer.restart()


def _goes_by(optimizer: AttachedOptimizer, group: Mapping[str, Any], name: str) -> bool:
    """Whether a value is one of the group's own: torch gives each group the defaults of all others as well."""
    leaf, _ = optimizer._leaves[group["optimizer"]]
    return has_value(optimizer, group, name) and (name not in optimizer.defaults or name in leaf.group())


def has_value(optimizer: AttachedOptimizer, group: Mapping[str, Any], name: str) -> bool:
    """Whether a group has a value, a multiplier of its rate too, which it keeps where it is not 1 alone."""
    return name in group or (name == SCALE and SCALE in optimizer._leaves[group["optimizer"]][0].group())


def _fitting(optimizer: AttachedOptimizer, layers: str) -> dict[int, list[str]]:
    """The names of the parameters that a name, pattern or class fits, by the place of their group."""
    if not isinstance(layers, str):
        raise TypeError(
            f"layers must be a name, a pattern or a class, such as 'head.*'. Received: layers={kind_of(layers)}."
        )
    known = {site_name(site): site for site, _ in optimizer.assigned if site.param is not None}
    found: dict[int, list[str]] = {}
    sites: list[Site] = []
    for place, group in enumerate(optimizer.param_groups):
        for name, param in named_parameters(group) if has_names(group) else ():
            sites.append(known.get(name) or named_sites([(name, param)])[0])
            if layers != "default" and strongest_key([layers], sites[-1]):
                found.setdefault(place, []).append(name)
    if not found:
        raise ValueError(_explain(layers, sites))
    return found


def _explain(layers: str, sites: list[Site]) -> str:
    if not sites:
        return (
            f"layers={shortened(layers)!r} fits nothing, for these parameters have no names: attach a module or its "
            "named_parameters()."
        )
    text = f"layers={shortened(layers)!r} fits no layer of this optimizer."
    return f"{text}{what_there_is([layers], sites, len(text))}"


def add_layers(optimizer: AttachedOptimizer, target: Any) -> None:
    """Take in the parameters of a target that are new, each into the group of its key; see AttachedOptimizer."""
    if not all(map(has_names, optimizer.param_groups)):
        raise ValueError(
            "Nothing can be added to parameters that have no names: attach a module or its named_parameters()."
        )
    sites = list(module_sites(target)) if isinstance(target, nn.Module) else named_sites(target)
    held = {id(param) for group in optimizer.param_groups for param in group["params"]}
    assigned = assign(optimizer.description, sites)
    new = [
        (site, match)
        for site, match in assigned
        if site.param is not None and match.optimizer is not None and id(site.param) not in held
    ]
    if not new:
        raise ValueError("There is nothing to add: the optimizer has every parameter of the target that is not frozen.")
    for site, _ in new:
        if site.param is not None and not site.param.is_leaf:
            raise ValueError(
                f"Parameter {shortened(site_name(site))!r} is not a leaf of the graph: an optimizer cannot update it."
            )
    replaced = _replaced(optimizer, sites, new)
    leaving = {id(old.param) for old in replaced.values()}
    staying = [(n, p) for group in optimizer.param_groups for n, p in named_parameters(group) if id(p) not in leaving]
    check_apart([*staying, *((site_name(site), site.param) for site, _ in new if site.param is not None)])
    for site, match in new:
        _add(optimizer, site, match, replaced.get(id(site.param)))
    _list_again(optimizer, assigned, whole=isinstance(target, nn.Module))
    optimizer.restart()


def _list_again(optimizer: AttachedOptimizer, assigned: list[tuple[Site, Match]], *, whole: bool) -> None:
    """Note where all sites are assigned to, in the order of a model; what is known of a parameter stays."""
    known = {id(site.param): (site, match) for site, match in optimizer.assigned if site.param is not None}
    now = [known.pop(id(site.param), (site, match)) for site, match in assigned]
    without = [] if whole else [entry for entry in optimizer.assigned if entry[0].param is None]
    optimizer.assigned = [*known.values(), *without, *now]


class _Old(NamedTuple):
    """A parameter in whose place another comes."""

    group: dict[str, Any]
    name: str
    param: Tensor


def _replaced(optimizer: AttachedOptimizer, sites: list[Site], new: list[tuple[Site, Match]]) -> dict[int, _Old]:
    """What stands under the names of new parameters, by the ids of these; wrappers around either do not matter."""
    standing = [_Old(group, *named) for group in optimizer.param_groups for named in named_parameters(group)]
    by_name = dict(zip(bare_names([old.name for old in standing]), standing, strict=True))
    names = list(dict.fromkeys(site_name(site) for site in sites if site.param is not None))
    bare = dict(zip(names, bare_names(names), strict=True))
    found = ((site.param, by_name.get(bare[site_name(site)])) for site, _ in new)
    return {id(param): old for param, old in found if old is not None}


def _add(optimizer: AttachedOptimizer, site: Site, match: Match, old: _Old | None) -> None:
    name, param = old.name if old else site_name(site), site.param
    if old:  # a layer in the place of another
        _remove(optimizer, old)
    of_key = [group for group in optimizer.param_groups if group["optimizer"] == match.key]
    if of_key:
        of_key[0]["params"].append(param)
        of_key[0]["param_names"].append(name)
    else:
        optimizer.add_param_group({"params": [(name, param)], "optimizer": match.key})


def _remove(optimizer: AttachedOptimizer, old: _Old) -> None:
    group, place = old.group, [param is old.param for param in old.group["params"]].index(True)
    del group["params"][place], group["param_names"][place]
    staying = {other: own for other, own in overrides_of(group).items() if other != old.name}
    group[KEY] = as_text(staying, of_group(group))
    optimizer.state.pop(old.param, None)
    optimizer.assigned = [entry for entry in optimizer.assigned if entry[0].param is not old.param]
