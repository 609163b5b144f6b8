"""What an `optimize` written by hand is given in a MultiOptimizer: the layers themselves, or a part of one."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from functools import lru_cache
from typing import Any

from neon.assignment.keys import Match
from neon.assignment.param_list import Entry, memory
from neon.assignment.sites import layer_sites


def is_by_hand(match: Match) -> bool:
    """Whether the optimizer of a match has an `optimize` of its own."""
    return match.optimizer is not None and match.optimizer._by_hand


def layers_of(owned: Iterable[tuple[Any, Entry]]) -> list[Any]:
    """The layers that own these entries, each once: itself, if it gives just these, else a part of it."""
    found: dict[int, tuple[Any, list[Entry]]] = {}
    for layer, entry in owned:
        found.setdefault(id(layer), (layer, []))[1].append(entry)
    return [layer if _gives(layer, entries) else _part(layer, entries) for layer, entries in found.values()]


def _gives(layer: Any, entries: list[Entry]) -> bool:
    """Whether these entries are all that an optimizer finds in the layer, with these gradients."""
    given = [site.entry for site in layer_sites(layer) if site.entry is not None]
    return list(map(_memories, given)) == list(map(_memories, entries))


def _memories(entry: Entry) -> Hashable:
    (param, grad), states = entry
    return memory(param), None if grad is None else memory(grad), id(states)


def _part(layer: Any, entries: list[Entry]) -> Any:
    """The layer, under its name and class, but with these entries.

    So an optimizer gets a layer whose parameters go to several, whose gradients a norm has scaled, or whose weight
    is another's too.
    """
    is_tuple = len(entries) == 1 and hasattr(layer, "get_params") and isinstance(layer.get_params(), tuple)
    kind = _part_of_class(type(layer))
    part = object.__new__(kind)
    object.__setattr__(part, "_neon_part", (layer, entries[0] if is_tuple else entries))
    return part


@lru_cache(maxsize=64)
def _part_of_class(kind: type) -> type:
    """A class of that name, below it, whose objects have what another object of the class has, but for `get_params`."""

    class Part(kind):
        def __getattribute__(self, name: str) -> Any:
            layer, entries = object.__getattribute__(self, "_neon_part")
            return (lambda: entries) if name == "get_params" else getattr(layer, name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(object.__getattribute__(self, "_neon_part")[0], name, value)

    Part.__name__, Part.__qualname__, Part.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    return Part
