"""The numbers that optimizers of layer lists go by in a step, and what these mean to the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from neon.assignment.description import Description
from neon.assignment.keys import Match
from neon.assignment.sites import Site
from neon.engine.settings import Settings
from neon.messages import quoted, shown
from neon.stepping.kept_numbers import deciding_device, numbers_of, placed
from neon.stepping.update_counts import updates_of

# A parameter with its place among all, where it is, and what it was assigned to.
Ours = tuple[int, Site, Match]


class LayerNumbers:
    """The numbers of each optimizer in use, by its key, in dictionaries that plans keep reading."""

    def __init__(self, optimizer: Description) -> None:
        self._optimizer = optimizer
        self._values: dict[str, dict[str, Any]] = {}

    def settings(
        self, in_use: Mapping[str, Match], epoch: int, updates: Callable[[], int]
    ) -> dict[str, Settings] | None:
        """Those of a step; None where some of them persist, and are kept with the layers."""
        settings = {}
        count = updates() if any(map(_counts_steps, in_use.values())) else 0
        for key, match in in_use.items():
            assert match.optimizer is not None
            values = self._read(match, epoch, count)
            if match.optimizer.starts(values):
                return None
            settings[key] = self._settings(match)
        return settings

    def settings_of(self, ours: Sequence[Ours], every: Sequence[Ours], epoch: int) -> dict[str, Settings]:
        """Those of a step over layers, with the numbers that these keep, of the optimizers of all that are updated."""
        settings, in_use = {}, {match.key: match for _, _, match in ours}
        count = updates_in(ours) if any(map(_counts_steps, in_use.values())) else 0
        for key, match in in_use.items():
            assert match.optimizer is not None
            values = self._read(match, epoch, count)
            if starts := match.optimizer.starts(values):
                device = deciding_device(site.param.device for _, site, _ in ours if site.param is not None)
                numbers = _numbers(every, key, starts)
                values.update((name, placed(value, device)) for name, value in numbers.items())
            settings[key] = self._settings(match)
        return settings

    def _read(self, match: Match, epoch: int, updates: int) -> dict[str, Any]:
        """What an optimizer says of itself, in its dictionary."""
        leaf = match.optimizer
        assert leaf is not None
        values = self._values.setdefault(match.key, {})
        values.clear()  # what another optimizer of this key left
        values.update(leaf.group())
        values["lr"] = leaf._scheduled_rate(values.get("lr", 0.0), epoch, updates)
        values["epoch"] = epoch
        values["batch_size"] = self._optimizer._backend_batch_size
        values["outer_clip_norms"] = tuple(norm.gradient_clip_norm for norm in match.norms)
        return values

    def _settings(self, match: Match) -> Settings:
        assert match.optimizer is not None
        return match.optimizer.settings(self._values[match.key], match.norms, batch_mean=True)


def _counts_steps(match: Match) -> bool:
    return match.optimizer is not None and match.optimizer._counts_steps


def updates_in(ours: Sequence[Ours]) -> int:
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
