"""The numbers that optimizers of layer lists go by in a step, and what these mean to the engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from neon.assignment.description import Description
from neon.assignment.keys import Match
from neon.assignment.sites import Site
from neon.engine.settings import Settings
from neon.engine.tensors.watch import same_objects
from neon.messages import quoted, shown
from neon.stepping.kept_numbers import deciding_device, numbers_of, placed
from neon.stepping.update_counts import updates_of

_FIXED = {int, float, bool, str, type(None), torch.dtype}
# What makes settings of the values of a group.
_METHODS = (
    "settings", "rule_of", "select_rule", "select_view", "starts", "compose", "_around", "_own_view", "_with_numbers",
    "_check_values", "_check_decay", "_decayed",
)  # fmt: skip
_OF_CLASSES = (*_METHODS, "rule", "view", "around", "seed", "_widest_rule", "_declared", "_keeps_decay")

# A parameter with its place among all, where it is, and what it was assigned to.
Ours = tuple[int, Site, Match]


class LayerNumbers:
    """The numbers of each optimizer in use, by its key, in dictionaries that plans keep reading."""

    def __init__(self, optimizer: Description) -> None:
        self._optimizer = optimizer
        self._known: dict[str, _Numbers] = defaultdict(_Numbers)

    def settings(self, in_use: Mapping[str, Match], epoch: int, updates: Callable[[], int]) -> list[Settings] | None:
        """What optimizers mean in a step; None where numbers persist, which layers keep."""
        count = updates() if any(map(_counts_steps, in_use.values())) else 0
        settings = []
        for key, match in in_use.items():
            values = self._read(match, epoch, count)
            if not self._known[key].are(match, values):
                assert match.optimizer is not None
                if match.optimizer.starts(values):
                    return None
                self._known[key].take(match, values)
            settings.append(self._known[key].settings)
        return settings

    def settings_of(self, ours: Sequence[Ours], every: Sequence[Ours], epoch: int) -> dict[str, Settings]:
        """The same for parameters that are updated, of those of `every`, with the numbers that layers keep."""
        in_use = {match.key: match for _, _, match in ours}
        count = _updates(ours) if any(map(_counts_steps, in_use.values())) else 0
        for key, match in in_use.items():
            values = self._read(match, epoch, count)
            assert match.optimizer is not None
            if starts := match.optimizer.starts(values):
                device = deciding_device(site.param.device for _, site, _ in ours if site.param is not None)
                numbers = _numbers(every, key, starts)
                values |= {name: placed(value, device) for name, value in numbers.items()}
            if starts or not self._known[key].are(match, values):
                self._known[key].take(match, values)
        return {key: self._known[key].settings for key in in_use}

    def versions(self, in_use: Mapping[str, Match]) -> list[int]:
        """How often the numbers of each have been others than before."""
        return [self._known[key].version for key in in_use]

    def _read(self, match: Match, epoch: int, updates: int) -> dict[str, Any]:
        """What an optimizer says of itself now."""
        leaf = match.optimizer
        assert leaf is not None
        values = {**leaf.group()}
        values["lr"] = leaf._scheduled_rate(values.get("lr", 0.0), epoch, updates)
        values["epoch"] = epoch
        values["batch_size"] = self._optimizer._backend_batch_size
        values["outer_clip_norms"] = tuple(norm.gradient_clip_norm for norm in match.norms)
        return values


class _Numbers:
    """The numbers of an optimizer with what they mean, and how often they have been others than before."""

    def __init__(self) -> None:
        self.version = 0
        self._values: dict[str, Any] = {}
        self._asked: list[Any] = []  # what, beside the values, the settings were made of

    def are(self, match: Match, values: Mapping[str, Any]) -> bool:
        """Whether an optimizer has just these, and would make the same of them."""
        return (
            bool(self._asked)
            and self._values.keys() == values.keys()
            and all(map(_same, values.values(), self._values.values()))
            and same_objects([*match.norms, *_asked(match.optimizer)], self._asked)
        )

    def take(self, match: Match, values: Mapping[str, Any]) -> None:
        """Go by others, in the same dictionary."""
        assert match.optimizer is not None
        self._asked, self.version = [], self.version + 1
        self._values.clear()
        self._values.update(values)
        self.settings = match.optimizer.settings(self._values, match.norms, batch_mean=True)
        if _is_told(match.optimizer):
            self._asked = [*match.norms, *_asked(match.optimizer)]


def _same(value: Any, before: Any) -> bool:
    """Whether a number is the same as before, to its type and sign; of what can change within, nobody knows."""
    kind = type(value)
    if kind is tuple:
        return type(before) is tuple and len(value) == len(before) and all(map(_same, value, before))
    return kind in _FIXED and (value is before or (kind is type(before) and repr(value) == repr(before)))


def _asked(optimizer: Any) -> list[Any]:
    """The optimizer, what it holds and what its class has that settings are made by."""
    found = [optimizer, *vars(optimizer).values(), *(getattr(type(optimizer), name, None) for name in _OF_CLASSES)]
    inner = vars(optimizer).get("inner")
    return found if inner is None else found + _asked(inner)


def _is_told(optimizer: Any) -> bool:
    """Whether the settings of an optimizer follow from its numbers and rule: its methods are neon's, not a user's."""
    kind, own = type(optimizer), vars(optimizer)
    methods = [getattr(kind, name) for name in _METHODS if hasattr(kind, name)]
    inner = own.get("inner")
    return (
        all(str(getattr(method, "__module__", "")).startswith("neon.") for method in methods)
        and own.keys().isdisjoint(_METHODS)
        and (inner is None or _is_told(inner))
    )


def _counts_steps(match: Match) -> bool:
    return match.optimizer is not None and match.optimizer._counts_steps


def _updates(ours: Sequence[Ours]) -> int:
    """How many steps there have been: what the layers count, whichever description updated them."""
    return max(updates_of(site.entry) for _, site, _ in ours if site.entry is not None)


def _numbers(every: Sequence[Ours], key: str, starts: Mapping[str, float]) -> dict[str, Any]:
    """The numbers that persist of the layers of a key, from where they start if these have none."""
    owners = [(site, numbers_of(site.entry)) for _, site, match in every if match.key == key and site.entry is not None]
    known = [(site, numbers) for site, numbers in owners if numbers]
    for site, numbers in known[1:]:
        if numbers != known[0][1]:
            name = next(name for name in numbers if numbers[name] != known[0][1].get(name))
            raise ValueError(
                f"{name} is one number of all layers of an optimizer, and it is {shown(known[0][1].get(name))} of "
                f"{quoted(known[0][0].label)} and {shown(numbers[name])} of {quoted(site.label)}, which were updated "
                "apart. Give each its own optimizer."
            )
    return {**starts, **(known[0][1] if known else {})}
