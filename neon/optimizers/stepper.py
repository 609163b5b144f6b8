"""One step over a list of layers: assignment, states, plan. What `Optimizer.optimize` does."""

from __future__ import annotations

import math
import threading
import warnings
import weakref
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from neon.arguments import epoch_number, positive_integer
from neon.engine.checks import check_parameter
from neon.engine.interrupts import Uninterrupted
from neon.engine.options import AVERAGE
from neon.engine.plan import Plan
from neon.engine.settings import Item, Settings
from neon.engine.storage import complete
from neon.messages import listed, quoted, shortened
from neon.optimizers.assignment import Match, assign
from neon.optimizers.averages import in_place_of, refuse_while_averaged
from neon.optimizers.by_hand import is_by_hand, layers_of
from neon.optimizers.multioptimizer import MultiOptimizer
from neon.optimizers.param_list import Entry, is_plain, memory
from neon.optimizers.schedules import counts_steps, rate
from neon.optimizers.sites import Site, layer_sites
from neon.optimizers.unmatched import explain_unmatched

if TYPE_CHECKING:
    from neon.optimizers.optimizer import Optimizer


def update_count(holder: Tensor) -> Tensor:
    """The number of updates that a tensor has had, kept on it as an attribute: it goes where the tensor goes.

    It is kept with the tensor's memory too, for layers whose `get_params()` makes a view at each call.
    """
    kept = _counts_of_memory(holder).get(memory(holder)) if is_plain(holder) else None
    return getattr(holder, "_neon_step", torch.tensor(0.0, dtype=torch.float64, device="cpu")) if kept is None else kept


class _Moves:
    """How often a count has been put in another tensor's place: whoever counts looks whether it was theirs."""

    made = 0


def keep_update_count(holder: Tensor, count: Tensor) -> None:
    """Keep what `update_count` gives from now on."""
    _Moves.made += 1
    holder._neon_step = count  # type: ignore[attr-defined]
    if is_plain(holder):
        _counts_of_memory(holder)[memory(holder)] = count


def updates_of(entry: Entry) -> int:
    """How often a parameter of a layer list has been updated."""
    (param, _), states = entry
    return int(update_count(states[0] if states else param))


def set_updates(entry: Entry, count: int) -> None:
    """Have a parameter's updates counted from `count` on."""
    (param, _), states = entry
    keep_update_count(states[0] if states else param, torch.tensor(float(count), dtype=torch.float64, device="cpu"))


def _counts_of_memory(tensor: Tensor) -> dict[Hashable, Tensor]:
    """The counts of what lies in a tensor's memory. They go when it is freed: none is found by an address alone."""
    return vars(tensor.untyped_storage()).setdefault("_neon_steps", {})


class LayerStepper:
    """Steps over layer lists for one optimizer; keeps the plan of the last call while it still holds."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._kept: list[Plan] = []  # the plan of the last step, as long as the layers live that it is for
        self._layers: list[weakref.ref[Any]] = []
        self._keys: list[str] = []
        self._values: dict[str, dict[str, Any]] = defaultdict(dict)
        self._moves = 0  # of counts, when those of the plan were looked at last
        self._warned = False
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

    @property
    def updates(self) -> int:
        """The number of updates that the layers of the last step have had; 0 where there was none."""
        return max((int(update_count(_holder(item))) for plan in self._kept for item in plan.items), default=0)

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
        if isinstance(self._optimizer, MultiOptimizer) and not self._warned:
            problem = explain_unmatched(self._optimizer, sites)
            if problem:
                self._warned = True
                warnings.warn(problem, UserWarning, stacklevel=4)
        return [(site, match) for site, match in assign(self._optimizer, sites) if site.entry is not None]

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
        self._kept.append(plan)

    def _plan(
        self, ours: Sequence[tuple[int, Site, Match]], settings: dict[str, Settings], grads: Sequence[Tensor]
    ) -> Plan:
        """The plan of the last step, where it still holds, or a new one; neither has changed a parameter or state."""
        entries = [site.entry for _, site, _ in ours if site.entry is not None]
        params = [param for (param, _), _ in entries]
        keys = [match.key for _, _, match in ours]
        states = [state for _, states in entries for state in states]
        plan = self._kept.pop() if self._kept else None
        if plan is not None and self._moves != _Moves.made:
            self._take_counts(plan)
        alike = plan is not None and self._keys == keys and all(map(Settings.alike, plan.settings, settings.values()))
        if plan is None or not alike or not plan.describes(params, states) or not plan.holds(grads):
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
            (param, _), states = site.entry
            program = settings[match.key].program
            check_parameter(site.label, param)
            storage, count = settings[match.key].storage, len(program.states)
            storage.check_weight(site.label, param)
            fresh, beside = ({}, []) if states else complete(storage, program, param, {})
            used = states or [*fresh.values(), *beside]
            own, companions = used[:count], used[count:]
            more = storage.companions(own, param)
            if len(used) != count + more:
                names = [*program.states, *([f"and {more} beside them"] if more else [])]
                raise ValueError(
                    f"The list of states of {shortened(site.label)} holds {len(used)} tensors; "
                    f"{shortened(program.name)} keeps {count + more} ({listed(names)}). Give an empty list to start "
                    "anew."
                )
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
        self._moves = _Moves.made

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
