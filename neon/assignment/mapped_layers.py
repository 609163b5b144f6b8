"""What a MultiOptimizer tells of its last step: which layers each optimizer was given."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from neon.assignment.description import Description
from neon.assignment.keys import Match
from neon.assignment.sites import Site


class MappedLayers:
    """The layers of one step with their matches; it keeps no layer alive that can be referred to weakly."""

    def __init__(self, assigned: Iterable[tuple[Site, Match]]) -> None:
        self._layers = [
            (_weakly(layer), match)
            for site, match in assigned
            if match.optimizer is not None
            for layer in (site.layer, *site.sharers)
        ]

    def by_optimizer(self, mapping: Description) -> dict[Any, list[Any]]:
        """For each optimizer, or mapping, that the mapping holds itself its layers: each once, in order."""
        found: dict[Description, dict[int, Any]] = {}
        for refer, match in self._layers:
            layer, chain = refer(), (*match.mappings, match.optimizer)
            if layer is not None and mapping in chain:
                below = chain[chain.index(mapping) + 1]
                assert below is not None
                found.setdefault(below, {}).setdefault(id(layer), layer)
        return {optimizer: [*layers.values()] for optimizer, layers in found.items()}


def _weakly(layer: Any) -> Callable[[], Any]:
    return weakref.ref(layer) if type(layer).__weakrefoffset__ else lambda: layer
