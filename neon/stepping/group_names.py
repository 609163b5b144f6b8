"""The names of a group's parameters, and what they go by where there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from neon.messages import listed, shown
from neon.stepping.overrides import overrides_of


def has_names(group: Mapping[str, Any]) -> bool:
    """Whether the names are those of the parameters: wrappers put one flat tensor in the place of many."""
    return "param_names" in group and len(group["param_names"]) == len(group["params"])


def named_parameters(group: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    """The parameters of a group with their names, made up from their places where there are none."""
    if has_names(group):
        return list(zip(group["param_names"], group["params"], strict=True))
    if own := overrides_of(group):
        raise ValueError(
            f"The group of {shown(group['optimizer'])} has other parameters than those of its names, for some of which "
            f"values are set: {listed(map(repr, own), 120)}. Call unset or unfreeze before parameters are replaced."
        )
    key = repr(group["optimizer"])
    return [(f"params[{i}] of {key}", param) for i, param in enumerate(group["params"])]


def names_shown(groups: Sequence[Mapping[str, Any]]) -> dict[str | int, str]:
    """What tables call parameters: by their names, or by their numbers among all where they have none of their own."""
    every = [group["param_names"] if has_names(group) else [None] * len(group["params"]) for group in groups]
    times = Counter(name for names in every for name in names)
    found: dict[str | int, str] = {}
    number = 0
    for place, names in enumerate(every):
        for at, name in enumerate(names):
            if name is not None and times[name] == 1:
                found[name] = name
            else:
                found[number + at] = f"group_{place}.{at}"
        number += len(names)
    return found


def keys_of(group: Mapping[str, Any]) -> Sequence[str]:
    """What the counts of a group's parameters go by: their names; their places where these do not fit."""
    return group["param_names"] if has_names(group) else [*map(str, range(len(group["params"])))]
