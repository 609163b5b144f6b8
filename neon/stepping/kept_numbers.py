"""The numbers of rules that persist: where they lie, and with which layers: over layer lists they are the model's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neon.assignment.param_list import Entry
from neon.engine.backends import serving
from neon.engine.program.declared import OPTIMIZER, State
from neon.engine.settings import Reach

if TYPE_CHECKING:
    from neon.stepping.group_rules import GroupRules


def deciding_device(devices: Iterable[torch.device]) -> torch.device | None:
    """The one device of all parameters, where a backend serves it that keeps numbers there; else the host does."""
    found = {*devices}
    return next(iter(found)) if len(found) == 1 and serving(*found).resident is not None else None


def placed(value: Any, device: torch.device | None) -> Any:
    """A number as it is kept: a float, or a tensor on the device, which is written to there."""
    if device is None:
        return float(value)
    if isinstance(value, Tensor) and value.device == device and value.dtype == torch.float64:
        return value
    return torch.tensor(float(value), dtype=torch.float64, device="cpu").to(device)


def new_numbers(
    found: Mapping[int, Mapping[str, float]], groups: Sequence[Any], rules: GroupRules
) -> Iterator[tuple[Any, dict[str, float]]]:
    """Groups with their new numbers: an optimizer's are those of all its groups, frozen and empty ones too.

    `found` has the numbers of groups that took part here, by their places.
    """
    kept = [*map(rules.numbers_kept, groups)]
    if rules.partition is not None:
        found = _found_anywhere(found, kept, rules.partition)
    owners = [id(rules.leaf_of(group)) for group in groups]
    shared: dict[tuple[int, str], float] = {}
    for place in sorted(found):
        for name, value in found[place].items():
            if kept[place][name].of == OPTIMIZER:
                shared.setdefault((owners[place], name), value)
    for place, (group, names) in enumerate(zip(groups, kept, strict=True)):
        own = {name: shared[key] for name in names if (key := (owners[place], name)) in shared}
        if new := {**found.get(place, {}), **own}:
            yield group, new


def _found_anywhere(
    found: Mapping[int, Mapping[str, float]], kept: Sequence[Mapping[str, State]], partition: Reach
) -> Mapping[int, Mapping[str, float]]:
    """The numbers that any process has found: not every one has a parameter of each group."""
    names = [(place, name) for place, numbers in enumerate(kept) for name in numbers]
    if not names:
        return found
    told = [float(name in found.get(place, ())) for place, name in names]
    everywhere: dict[int, dict[str, float]] = {}
    for share in partition.gather([*told, *(found.get(place, {}).get(name, 0.0) for place, name in names)]):
        for (place, name), there, value in zip(names, share, share[len(names) :], strict=False):
            if there:
                everywhere.setdefault(place, {}).setdefault(name, value)
    return everywhere


def numbers_of(entry: Entry) -> dict[str, Any]:
    """The numbers that a step has kept with a parameter of a layer list."""
    return getattr(_holder(entry), "_neon_numbers", {})


def keep_numbers(entries: Iterable[Entry], numbers: dict[str, Any]) -> None:
    """Keep numbers with all parameters that they are of."""
    for entry in entries:
        _holder(entry)._neon_numbers = dict(numbers)  # type: ignore[attr-defined]


def _holder(entry: Entry) -> Tensor:
    (param, _), states = entry
    return states[0] if states else param
