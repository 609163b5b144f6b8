"""What an attached optimizer prints: the table of its layers, and a drop-in's groups as torch has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from neon.assignment.printed_table import NOTHING, Given, frozen, given, matrices_text
from neon.assignment.sites import Site, site_name
from neon.attached.targets import Assigned
from neon.stepping import overrides
from neon.stepping.group_names import has_names
from neon.stepping.group_rules import GroupRules
from neon.stepping.overrides import overrides_of, values_over

# What a group keeps of single parameters.
_NOT_SHOWN = {"params", "param_names", overrides.KEY}


def rows_of(
    optimizer: Optimizer, rules: GroupRules, assigned: Assigned, *, full: bool
) -> Iterator[tuple[Site, Given, int]]:
    """Every parameter, in the order of the model, with what it goes by and its bytes of state.

    Parameters without names stand under their group; with `full` each has its place there.
    """
    found = dict(_members(optimizer, rules, full=full))
    by_name = {site_name(site): key for key, (site, _) in found.items()}
    for site, match in assigned:
        if site.param is None:
            yield site, NOTHING, 0
        elif match.optimizer is None:
            yield site, frozen(match.key), 0
        else:  # others may have put parameters of theirs in the places of these
            key = id(site.param) if id(site.param) in found else by_name.get(site_name(site))
            if key in found:
                own, goes_by = found.pop(key)
                yield site, goes_by, _state_bytes(optimizer, own.param)
    for site, goes_by in found.values():
        yield site, goes_by, _state_bytes(optimizer, site.param)


def _members(optimizer: Optimizer, rules: GroupRules, *, full: bool) -> Iterator[tuple[int, tuple[Site, Given]]]:
    for place, group in enumerate(optimizer.param_groups):
        leaf = rules.leaf_of(group)
        values = {name: group[name] for name in leaf.group() if name in group}  # torch adds those of other rules
        every = given(leaf, group["optimizer"], values)
        if not has_names(group):
            for number, param in enumerate(group["params"]):
                label = f"param_groups[{place}]" + (f".params[{number}]" if full else "")
                goes_by = every._replace(matrices=_matrices(rules, group, label, param))
                yield id(param), (Site(label, "Parameter", (), (), param), goes_by)
            continue
        of_layers = overrides_of(group)
        same: dict[str, Given] = {}
        for name, param in zip(group["param_names"], group["params"], strict=True):
            goes_by = every
            if own := of_layers.get(name):
                if (text := repr(own)) not in same:
                    same[text] = given(leaf, group["optimizer"], values_over(own, values), own)
                goes_by = same[text]
            if text := _matrices(rules, group, name, param):
                goes_by = goes_by._replace(matrices=text)
            yield id(param), (Site(name, "Parameter", (name,), (), param), goes_by)


def _matrices(rules: GroupRules, group: Mapping[str, Any], name: str, param: Tensor) -> str:
    """The matrices of a parameter, or why it is under another rule, where one of the rules is of matrices."""
    if (leaf := rules.leaf_of(group)).of_matrices and param.dim() > 1:
        return matrices_text(leaf, group, rules.matrices(group, name, param), param.shape)
    return rules.sites[name].role.said if name in rules.sites else ""


def _state_bytes(optimizer: Optimizer, param: Any) -> int:
    state = optimizer.state.get(param)
    return sum(t.numel() * t.element_size() for t in _tensors(state)) if isinstance(state, Mapping) else 0


def _tensors(state: Mapping[str, Any]) -> Iterator[Tensor]:
    """The tensors of a state, those of the dicts in it too."""
    for value in state.values():
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, Mapping):
            yield from _tensors(value)


def groups_text(optimizer: Optimizer) -> str:
    """The groups' values as torch prints them; groups that are alike, one after another, once."""
    texts = [
        "".join(f"    {key}: {group[key]}\n" for key in sorted(group) if key not in _NOT_SHOWN)
        for group in optimizer.param_groups
    ]
    shown, place = "", 0
    for text, alike in groupby(texts):
        last = place + len(list(alike)) - 1
        shown += f"\nParameter Group{f's {place} to {last}' if last > place else f' {place}'}\n{text}"
        place = last + 1
    return f"{type(optimizer).__name__} ({shown})"
