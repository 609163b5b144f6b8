"""Layers of an attached optimizer by name: values of their own, frozen ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from neon.arguments import plain
from neon.assignment.keys import check_pattern, strongest_key
from neon.assignment.sites import Site, named_sites, site_name
from neon.assignment.unmatched import what_there_is
from neon.attached.targets import Assigned
from neon.engine.program.formats import state_format
from neon.engine.program.options import DECAY, SCALE
from neon.engine.refusals.combinations import check_own
from neon.messages import kind_of, listed, shortened
from neon.stepping.group_names import has_names, named_parameters
from neon.stepping.group_rules import GroupRules
from neon.stepping.overrides import KEY, as_text, of_group, overrides_of, values_over

# What a group holds that is not for a layer to have another of.
_NOT_FOR_LAYERS = {"params", "param_names", "optimizer", KEY, "epoch", "updates", "initial_lr", "scheduled_lr",
                   "previous_norm", DECAY}  # fmt: skip

Values = dict[str, Any]


class Layers:
    """The layers of an attached optimizer by name; `defaults` are torch's, `assigned` the sites that are known."""

    def __init__(self, optimizer: Optimizer, rules: GroupRules, assigned: Assigned) -> None:
        self._groups, self._defaults = optimizer.param_groups, optimizer.defaults
        self._rules, self._assigned = rules, assigned

    def key_of(self, name: str) -> str:
        """What groups call a value; `ValueError` for what is no value of any group."""
        has_value = self._rules.has_value
        keys = {key for group in self._groups for key in (*group, SCALE) if has_value(group, key)} - _NOT_FOR_LAYERS
        names = {_word(key): key for key in keys}
        if name not in names:
            raise ValueError(
                f"No parameter group has a value {shortened(name)!r}. Their values: {listed(sorted(names), 350)}."
            )
        return names[name]

    def set_everywhere(self, name: str, value: Any) -> None:
        """Set a value of every group that has it; of a rate with a schedule, the one that it starts from."""
        value = plain(value)
        groups = [group for group in self._groups if self._rules.has_value(group, name)]
        for group in groups:
            self._rules.settings(values_over({name: value}, group))  # refuses values by name, before any is set
        for group in groups:
            group[name] = value.clone() if isinstance(value, Tensor) else value  # schedulers write into tensors
            if name == "lr" and "updates" in group:
                group["scheduled_lr"] = float(value)
                self._rules.apply_schedule(group)

    def set_for(self, layers: str, name: str, value: Any) -> None:
        """Set a value for the layers that fit and whose group has such a value."""
        if name == "gradient_clip_norm" and self._rules.partition is not None:
            raise ValueError(
                "gradient_clip_norm cannot be set for layers with partitioned=True: processes that hold none of them "
                "would not know of the norm. Set it without layers, or give the layers a key of their own in a "
                "MultiOptimizer."
            )
        kept = state_format(name, value) if name == "state_dtype" else _kept(value)
        self.override(layers, lambda own: {**own, name: kept}, name)

    def override(self, layers: str, change: Callable[[Values], Values], name: str = "params") -> None:
        """Change the values that layers have of their own, in all parameters that fit or, refused, in none.

        Groups without a value of this name are left out.
        """
        fitting = self.fitting(layers)
        found = {place: names for place, names in fitting.items() if self._goes_by(self._groups[place], name)}
        if not found:
            keys = listed(dict.fromkeys(repr(self._groups[place]["optimizer"]) for place in fitting))
            raise ValueError(
                f"The layers that layers={shortened(layers)!r} fits belong to {keys}, which has no value "
                f"{_word(name)!r}."
            )
        changed: dict[int, dict[str, Values]] = {}
        for place, names in found.items():
            group = self._groups[place]
            overrides = overrides_of(group)
            for param in names:
                overrides[param] = change(overrides.get(param, {}))
                settings = self._rules.settings(values_over(overrides[param], group))
                check_own(overrides[param], settings.program)
            changed[place] = overrides
        texts = {place: as_text(own, of_group(self._groups[place])) for place, own in changed.items()}
        for place, text in texts.items():
            self._groups[place][KEY] = text

    def _goes_by(self, group: Mapping[str, Any], name: str) -> bool:
        """Whether a value is one of the group's own: torch gives each group the defaults of all others as well."""
        own = name not in self._defaults or name in self._rules.leaf_of(group).group()
        return self._rules.has_value(group, name) and own

    def fitting(self, layers: str) -> dict[int, list[str]]:
        """The names of the parameters that a name, pattern or class fits, by the place of their group."""
        if not isinstance(layers, str):
            raise TypeError(
                f"layers must be a name, a pattern or a class, such as 'head.*'. Received: layers={kind_of(layers)}."
            )
        check_pattern(f"layers={shortened(layers)!r}", layers)
        sites = [*self._sites()]
        found: dict[int, list[str]] = {}
        for place, name, site in sites:
            if layers != "default" and strongest_key([layers], site):
                found.setdefault(place, []).append(name)
        if not found:
            raise ValueError(_explain(layers, [site for *_, site in sites]))
        return found

    def fitting_any(self, layers: Collection[str]) -> set[str]:
        """The names of the parameters that one of several fits, none of which is refused."""
        return {name for _, name, site in self._sites() if strongest_key(layers, site)}

    def _sites(self) -> Iterator[tuple[int, str, Site]]:
        """The parameters that have names: the place of their group, name, and site."""
        known = {site_name(site): site for site, _ in self._assigned if site.param is not None}
        for place, group in enumerate(self._groups):
            for name, param in named_parameters(group) if has_names(group) else ():
                yield place, name, known.get(name) or named_sites([(name, param)])[0]


def _word(key: str) -> str:
    """What a value of a group is called by `set`."""
    return "lr_scale" if key == SCALE else key


def _kept(value: Any) -> Any:
    """A value as layers keep it: with numbers in the place of tensors, whose changes nobody would notice."""
    if isinstance(value := plain(value), (tuple, list)):
        return tuple(map(_kept, value))
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def _explain(layers: str, sites: list[Site]) -> str:
    if not sites:
        return (
            f"layers={shortened(layers)!r} fits nothing, for these parameters have no names: attach a module or its "
            "named_parameters()."
        )
    text = f"layers={shortened(layers)!r} fits no layer of this optimizer."
    return f"{text}{what_there_is([layers], sites, len(text))}"
