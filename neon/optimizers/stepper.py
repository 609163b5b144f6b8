"""One step over a list of layers: assignment, states, plan. What `Optimizer.optimize` does."""

from __future__ import annotations

import math
import threading
import warnings
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from neon.arguments import epoch_number, positive_integer
from neon.engine.checks import check_parameter
from neon.engine.interrupts import Uninterrupted
from neon.engine.options import AVERAGE
from neon.engine.plan import Plan
from neon.engine.settings import Item, Settings
from neon.engine.watch import same_objects
from neon.messages import quoted
from neon.optimizers.assignment import Match, assign
from neon.optimizers.averages import in_place_of, refuse_while_averaged
from neon.optimizers.by_hand import is_by_hand, layers_of
from neon.optimizers.mapped_layers import MappedLayers
from neon.optimizers.multioptimizer import MultiOptimizer
from neon.optimizers.param_list import Entry
from neon.optimizers.schedules import counts_steps, rate
from neon.optimizers.sites import Site, layer_sites
from neon.optimizers.state_lists import split_states
from neon.optimizers.unmatched import explain_unmatched
from neon.optimizers.update_counts import Moves, keep_update_count, update_count, updates_of

if TYPE_CHECKING:
    from neon.optimizers.optimizer import Optimizer


class _Kept(NamedTuple):
    """A plan, and what the lists of states held that it was made for, in order: all of it, states or not."""

    plan: Plan
    held: list[Any]


class LayerStepper:
    """Steps over layer lists for one optimizer; keeps the plan of the last call while it still holds."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._kept: list[_Kept] = []  # of the last step, as long as the layers live that it is for
        self._layers: list[weakref.ref[Any]] = []
        self._keys: list[str] = []
        self._values: dict[str, dict[str, Any]] = defaultdict(dict)
        self._moves = 0  # of counts, when those of the plan were looked at last
        self._warned: Any = None  # the mapping whose keys that fit nothing have been told
        self._averaged = False
        self._created: list[tuple[list[Tensor], list[Tensor]]] = []  # lists of layers, and what goes into them
        self._lock = threading.Lock()
        self._uninterrupted = Uninterrupted()

    def step(self, layer_list: Any, epoch: int) -> None:
        """Update every parameter once; what is refused leaves all of them as they were."""
        epoch = epoch_number(epoch)
        if self._averaged:
            refuse_while_averaged()
        with self._lock:
            assigned = self._assign(layer_list)
            by_hand = [(site, match) for site, match in assigned if is_by_hand(match)]
            ours = [
                (index, site, match)
                for index, (site, match) in enumerate(assigned)
                if match.optimizer and _gradient(site) is not None and not is_by_hand(match)
            ]
            self._step(ours, by_hand, epoch)
            self._tell_mappings(assigned)

    @property
    def updates(self) -> int:
        """The number of updates that the layers of the last step have had; 0 where there was none."""
        return max((int(update_count(_holder(item))) for kept in self._kept for item in kept.plan.items), default=0)

    @contextmanager
    def averaged(self, layer_list: Any) -> Iterator[None]:
        """Have the layers compute with the averages of their weights."""
        if self._averaged:
            refuse_while_averaged()
        entries = [(site.entry, match.optimizer) for site, match in self._assign(layer_list) if not is_by_hand(match)]
        try:
            with in_place_of(pair for entry, leaf in entries if entry and leaf for pair in _averages(entry, leaf)):
                self._averaged = True
                yield
        finally:
            self._averaged = False

    def _assign(self, layer_list: Any) -> list[tuple[Site, Match]]:
        sites = list(layer_sites(layer_list))
        optimizer = self._optimizer
        if isinstance(optimizer, MultiOptimizer) and self._warned is not optimizer.optimizer_mapping:
            problem = explain_unmatched(optimizer, sites)
            if problem:
                self._warned = optimizer.optimizer_mapping
                warnings.warn(problem, UserWarning, stacklevel=4)
        return [(site, match) for site, match in assign(optimizer, sites) if site.entry is not None]

    def _tell_mappings(self, assigned: Sequence[tuple[Site, Match]]) -> None:
        """Let each MultiOptimizer know the layers that came to it, for its `map_list`."""
        if isinstance(self._optimizer, MultiOptimizer):
            layers = MappedLayers(assigned)
            for mapping in {self._optimizer, *(mapping for _, match in assigned for mapping in match.mappings)}:
                mapping._mapped = layers

    def _step(self, ours: Sequence[tuple[int, Site, Match]], by_hand: Sequence[tuple[Site, Match]], epoch: int) -> None:
        """Update everything, once nothing is left to refuse: first by hand, where others' code may refuse still."""
        settings = self._settings(ours, epoch)
        grads = [grad for _, site, _ in ours if (grad := _gradient(site)) is not None]
        elsewhere = self._squares(by_hand)
        plan = self._plan(ours, settings, grads)
        if by_hand:
            plan.check(grads)
            everything = self._squares([*by_hand, *((site, match) for _, site, match in ours)]) if elsewhere else {}
            self._step_by_hand(by_hand, everything, epoch)
            if not plan.holds(grads):
                plan = self._make_plan(ours, settings, grads)
        with self._uninterrupted:
            self._keep_states()
            plan.step(grads, elsewhere)
        self._kept.append(_Kept(plan, _held(ours)))

    def _plan(
        self, ours: Sequence[tuple[int, Site, Match]], settings: dict[str, Settings], grads: Sequence[Tensor]
    ) -> Plan:
        """The plan of the last step, where it still holds, or a new one; neither has changed a parameter or state."""
        entries = [site.entry for _, site, _ in ours if site.entry is not None]
        params = [param for (param, _), _ in entries]
        keys = [match.key for _, _, match in ours]
        plan, before = self._kept.pop() if self._kept else (None, [])
        if plan is not None and self._moves != Moves.made:
            self._take_counts(plan)
        alike = plan is not None and self._keys == keys and all(map(Settings.alike, plan.settings, settings.values()))
        same = plan is not None and same_objects(params, plan.params) and same_objects(_held(ours), before)
        if plan is None or not alike or not same or not plan.holds(grads):
            plan = self._make_plan(ours, settings, grads)
            self._keys = keys
            self._let_go_with([site.layer for _, site, _ in ours])
        else:
            self._created = []
        return plan

    def _let_go_with(self, layers: Sequence[Any]) -> None:
        """Let go of the plan, which holds parameters, once one of its layers is gone."""
        kept = self._kept
        self._layers = [
            weakref.ref(layer, lambda _: kept.clear())
            for layer in {id(layer): layer for layer in layers}.values()
            if type(layer).__weakrefoffset__
        ]

    def _settings(self, ours: Sequence[tuple[int, Site, Match]], epoch: int) -> dict[str, Settings]:
        """The numbers of this step for each optimizer in use, in dictionaries that the plan keeps reading."""
        settings, in_use = {}, {match.key: match for _, _, match in ours}
        updates = _updates(ours) if any(map(_counts_steps, in_use.values())) else 0
        for match in in_use.values():
            leaf = match.optimizer
            assert leaf is not None
            values = self._values[match.key]
            values.update(leaf.group())
            values["lr"] = rate(leaf.schedule, values.get("lr", 0.0), epoch, updates)
            values["epoch"] = epoch
            values["batch_size"] = positive_integer("be.bsz", self._optimizer.be.bsz)
            values["outer_clip_norms"] = tuple(norm.gradient_clip_norm for norm in match.norms)
            settings[match.key] = leaf.settings(values, match.norms, batch_mean=True)
        return settings

    def _make_plan(
        self, ours: Sequence[tuple[int, Site, Match]], settings: dict[str, Settings], grads: Sequence[Tensor]
    ) -> Plan:
        places = {key: place for place, key in enumerate(settings)}
        items, self._created, owners = [], [], dict[int, str]()  # of each list of states, the layer
        for index, site, match in ours:
            assert site.entry is not None
            assert match.optimizer is not None
            (param, _), states = site.entry
            program = settings[match.key].program
            check_parameter(site.label, param)
            storage = settings[match.key].storage
            storage.check_weight(site.label, param)
            own, companions = split_states(states, site, match.optimizer, program, storage)
            used = [*own, *companions]
            if used and id(states) in owners:
                raise ValueError(
                    f"Two parameters, of {quoted(owners[id(states)])} and of {quoted(site.label)}, have one list of "
                    "states. Give each a list of its own: self.states = [] in the layer's __init__."
                )
            owners[id(states)] = site.label
            self._created.append((states, used))
            items.append(
                Item(
                    site.label,
                    param,
                    own,
                    update_count(used[0] if used else param),
                    places[match.key],
                    index,
                    companions=companions,
                )
            )
        plan = Plan(items, grads, list(settings.values()))
        self._take_counts(plan)
        return plan

    def _keep_states(self) -> None:
        """Give the layers the states that were made for them, once the step is sure to be made."""
        for states, used in self._created:
            if not states:
                states.extend(used)
        self._created = []

    def _take_counts(self, plan: Plan) -> None:
        """Have the plan count its tensors, from where others have counted them to: another optimizer, a file."""
        for place, (item, own) in enumerate(zip(plan.items, plan.counts.exact, strict=True)):
            kept = update_count(_holder(item))
            if kept is not own:
                plan.counts.set(place, float(kept))
                keep_update_count(_holder(item), own)
        self._moves = Moves.made

    def _squares(self, matched: Sequence[tuple[Site, Match]]) -> dict[int, float]:
        """What these gradients add to the norms over everything, by the norm's owner."""
        squares: dict[int, float] = defaultdict(float)
        for site, match in matched:
            grad = _gradient(site)
            for norm in match.norms if grad is not None else ():
                mean = torch.linalg.vector_norm(grad, dtype=torch.float64).item()
                mean /= positive_integer("be.bsz", self._optimizer.be.bsz)
                squares[id(norm)] += mean * mean
        return dict(squares)

    def _step_by_hand(self, by_hand: Sequence[tuple[Site, Match]], totals: Mapping[Any, float], epoch: int) -> None:
        """Let each hand-written optimizer update its layers, with gradients scaled by the norms over it."""
        shares: dict[Optimizer, list[tuple[Any, Entry]]] = defaultdict(list)
        for site, match in by_hand:
            assert site.entry is not None
            assert match.optimizer is not None
            (param, grad), states = site.entry
            factor = 1.0
            for norm in match.norms if grad is not None else ():
                bound, size = norm.gradient_clip_norm, factor * math.sqrt(totals[id(norm)])
                assert bound is not None
                factor *= bound / size if not size <= bound else 1.0
            scaled = grad if grad is None or factor == 1 else grad * factor
            shares[match.optimizer].append((site.layer, ((param, scaled), states)))
        for optimizer, owned in shares.items():
            optimizer.optimize(layers_of(owned), epoch)


def _holder(item: Item) -> Tensor:
    """The tensor that keeps the count of an item's updates: that of its states that comes first, if it has any."""
    return next(iter((*item.states, *item.companions)), item.param)


def _held(ours: Sequence[tuple[int, Site, Match]]) -> list[Any]:
    """What all lists of states hold, in order."""
    return [state for _, site, _ in ours if site.entry is not None for state in site.entry[1]]


def _updates(ours: Sequence[tuple[int, Site, Match]]) -> int:
    """How many steps there have been: what the layers count, whichever description updated them."""
    return max(updates_of(site.entry) for _, site, _ in ours if site.entry is not None)


def _counts_steps(match: Match) -> bool:
    return match.optimizer is not None and counts_steps(match.optimizer.schedule)


def _averages(entry: Entry, leaf: Optimizer) -> Iterator[tuple[Tensor, Tensor]]:
    """The parameter of an entry with the average of its weights, if it has one."""
    (param, _), states = entry
    names = [*leaf.settings(leaf.group()).program.states]
    if AVERAGE in names[: len(states)]:
        yield param, states[names.index(AVERAGE)]


def _gradient(site: Site) -> Tensor | None:
    return None if site.entry is None else site.entry[0][1]
