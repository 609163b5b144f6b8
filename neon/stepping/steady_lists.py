"""A step over layers like the last: what that has found still holds, and is not found anew."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from itertools import chain, compress
from operator import call
from typing import Any

from torch import Tensor, nn

from neon.assignment.description import Description
from neon.assignment.keys import Match
from neon.assignment.mapped_layers import MappedLayers
from neon.assignment.param_list import Aliases, Given, param_entry, writable
from neon.assignment.roles import asks_for_roles
from neon.assignment.seen_layers import Glance, SeenLayers, UnsureError
from neon.assignment.sites import Site
from neon.engine.tensors.watch import Likeness, same_objects

# Tensors of other classes may stand for memory elsewhere, and a lazy one has none.
_PLAIN = {Tensor, nn.Parameter}


def glance_at(layers: Any) -> Glance | None:
    """What is read of layers before each step; None where that would not tell whether they are as before."""
    try:
        return Glance(layers)
    except UnsureError:
        return None


def described(optimizer: Description) -> list[Any]:
    """The objects that an assignment goes by: the optimizers, and what is in their mappings.

    None are given for a class that assigns layers by itself, and for one that goes by the whole model.
    """
    kind: Any = type(optimizer)
    mapping = optimizer._optimizers_by_key
    if asks_for_roles(optimizer) or not kind.match.__module__.startswith("neon."):
        return []
    found = [optimizer, kind.match, kind.optimize, mapping, optimizer.gradient_clip_norm is None]
    for inner in () if mapping is None else mapping.values():
        below = [None] if inner is None else described(inner)
        if not below:
            return []
        found += below
    return [*found, *(mapping or ())]


class SteadyLayers:
    """What a step over layers has found, of which the next asks whether it is still so.

    `assigned` are all parameters with their optimizers; those in `planned`, by their places, have gradients and a plan,
    which knows them as `params`. `in_use` are their matches by key, and `mapped` tells `mappings` of their layers.

    Raises `UnsureError` where some of it may be another the next time without anybody's knowing.
    """

    def __init__(
        self,
        glance: Glance,
        given: Given,
        assigned: Sequence[tuple[Site, Match]],
        planned: Sequence[int],
        params: Sequence[Tensor],
        mapped: MappedLayers | None,
    ) -> None:
        if any(site.sharers for site, _ in assigned) or not planned:
            raise UnsureError
        self._seen, self.mapped = SeenLayers(glance), mapped
        self.mappings = [*dict.fromkeys(mapping for _, match in assigned for mapping in match.mappings)]
        self.versions: list[int] = []  # of the numbers of these, when the plan has last read them
        self.in_use = {assigned[place][1].key: assigned[place][1] for place in planned}
        own, first = _entries(given.found.get(id(layer)) for layer in glance.layers), len(glance.parameters)
        aliases = [*(param_entry(param)[0][0] for param in glance.parameters), *(writable(param) for param, *_ in own)]
        places = {id(alias): place for place, alias in enumerate(aliases)}
        entries = [site.entry for site, _ in assigned if site.entry is not None]
        found = [places.get(id(param), -1) for (param, _), _ in entries]
        if -1 in found:
            raise UnsureError
        self._planned = [found[place] for place in planned]
        self._lists = [entries[place][1] for place in planned]
        others = {*range(len(assigned))}.difference(planned)
        self._without = [found[place] for place in sorted(others) if assigned[place][1].optimizer]
        self._own_params = [weakref.ref(param) for param, *_ in own]
        lists = zip(self._planned, self._lists, strict=True)
        self._own_lists = [(place - first, states) for place, states in lists if place >= first]
        self._params, self._aliases_made = params, Aliases.made
        asked = [*glance.parameters, *(param for param, *_ in own)]
        if not {*map(type, asked)} <= _PLAIN:
            raise UnsureError
        tensors = [*asked, *params]
        firsts = {id(tensor): place for place, tensor in reversed([*enumerate(tensors)])}
        self._firsts = [firsts[id(tensor)] == place for place, tensor in enumerate(tensors)]
        self._addresses, self._like = [*map(Tensor.data_ptr, asked)], Likeness([*compress(tensors, self._firsts)])
        if not self._are_alike(asked):
            raise UnsureError

    def _are_alike(self, asked: Sequence[Tensor]) -> bool:
        """Whether the tensors of layers, and those of the plan, are of the same kinds and sizes; each is asked once."""
        return self._like.holds([*compress([*asked, *self._params], self._firsts)])

    def fits(self, glance: Glance) -> bool:
        """Whether layers are the same, with the same names, classes and parameters."""
        return self._aliases_made == Aliases.made and self._seen.fits(glance)

    def gradients(self, glance: Glance, given: Given) -> list[Tensor | None] | None:
        """The gradients of the planned parameters; None where others have one, or layers do not give the same."""
        found = [*map(given.ask_early, glance.layers)]
        try:
            own = _entries(found)
        except UnsureError:  # no entries any more: the walk says so
            return None
        params = [param for param, *_ in own]
        if not (
            same_objects(params, [*map(call, self._own_params)])
            and all(own[place][2] is states for place, states in self._own_lists)
        ):
            return None
        asked = [*glance.parameters, *params]
        every = [*(param.grad for param in glance.parameters), *(grad for _, grad, _ in own)]
        grads = [every[place] for place in self._planned]
        same = (
            {*map(type, grads)} == {Tensor}
            and {*map(type, every)} <= {Tensor, type(None)}
            and all(every[place] is None for place in self._without)
            and [*map(Tensor.data_ptr, asked)] == self._addresses
            and self._are_alike(asked)
        )
        return grads if same else None

    def held(self) -> list[Any]:
        """What all lists of states of the planned parameters hold, in order."""
        return [*chain.from_iterable(self._lists)]


def _entries(given: Iterable[Any]) -> list[tuple[Tensor, Any, list[Tensor]]]:
    """The parameter, gradient and states of all entries that layers have given; `UnsureError` for anything else."""
    try:
        entries = [entry for found in given for entry in ((found,) if type(found) is tuple else found)]
        if not {*map(type, entries)} <= {tuple}:
            raise UnsureError
        found = [(param, grad, states) for (param, grad), states in entries]
    except (TypeError, ValueError) as error:
        raise UnsureError from error
    if not {type(states) for *_, states in found} <= {list}:
        raise UnsureError
    return found
