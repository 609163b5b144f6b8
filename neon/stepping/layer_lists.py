"""One step over a list of layers: assignment, states, plan. What `Optimizer.optimize` does."""

from __future__ import annotations

import math
import threading
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from neon.arguments import epoch_number
from neon.assignment.declared_parts import matrices_of
from neon.assignment.description import Description
from neon.assignment.keys import Match, assign
from neon.assignment.mapped_layers import MappedLayers
from neon.assignment.matrix_checks import check_matrices
from neon.assignment.param_list import Entry, Given
from neon.assignment.roles import asks_for_roles, with_roles
from neon.assignment.seen_layers import Glance, UnsureError
from neon.assignment.sites import Site, layer_sites
from neon.assignment.unmatched import explain_unmatched
from neon.engine.plan import Plan
from neon.engine.refusals.formats import check_weight
from neon.engine.refusals.tensors import check_parameter, check_sides
from neon.engine.settings import Item, Settings
from neon.engine.tensors.watch import same_objects
from neon.messages import quoted
from neon.stepping.by_hand import is_by_hand, layers_of
from neon.stepping.in_place import in_place_of, places_taken, refuse_in_place, refuse_without_views, way_in_place
from neon.stepping.kept_numbers import keep_numbers
from neon.stepping.layer_numbers import LayerNumbers, Ours
from neon.stepping.layer_plans import LayerPlan, LayerPlans
from neon.stepping.state_lists import kept_in_list, viewed_in_list
from neon.stepping.steady_lists import SteadyLayers, described, glance_at
from neon.stepping.stepper import Stepper
from neon.stepping.update_counts import update_count


class LayerStepper:
    """Steps over layer lists for one optimizer; keeps the last plan of each list of layers while it still holds."""

    def __init__(self, optimizer: Description) -> None:
        self._optimizer = optimizer
        self._plans = LayerPlans()
        self._numbers = LayerNumbers(optimizer)
        self._described: list[Any] = []  # what the assignments of `_plans` went by
        self._warned: Any = None  # the mapping whose keys that fit nothing have been told
        self._fitted: Any = None  # keys, and the names and classes of layers, of the last look for such keys
        self._lock = threading.Lock()
        self._stepper = Stepper()

    def step(self, layer_list: Any, epoch: int) -> None:
        """Update every parameter once; what is refused leaves all of them as they were."""
        epoch, given = epoch_number(epoch), Given()
        with self._lock:
            glance = glance_at(layer_list)
            if glance is not None and self._step_as_before(glance, given, epoch):
                return
            assigned = self._assign(layer_list, given)
            _check_weights(assigned)
            by_hand = [(site, match) for site, match in assigned if self._is_by_hand(match)]
            every = [
                (index, site, match)
                for index, (site, match) in enumerate(assigned)
                if match.optimizer and not self._is_by_hand(match)
            ]
            holder = self._step(every, by_hand, epoch)
            mapped = self._tell_mappings(assigned)
            if glance is not None and self._described and not by_hand:
                holder.take_note(glance, given, assigned, mapped)

    def _step_as_before(self, glance: Glance, given: Given, epoch: int) -> bool:
        """The step of layers of which nothing has changed since their last; False, with nothing done, of others."""
        if not same_objects(now := described(self._optimizer), self._described):
            self._plans.forget_steady()
            self._described = now
        found = self._plans.fitting(glance)
        grads = None if found is None or places_taken() else found[1].gradients(glance, given)
        if found is None or grads is None:
            return False
        kept, steady = found
        plan = kept.plan
        kept.take_counts()
        settings = self._numbers.settings(steady.in_use, epoch, lambda: int(plan.counts.read().max()))
        versions = self._numbers.versions(steady.in_use)
        reread = versions != steady.versions
        if settings is None or (reread and not all(map(Settings.alike, plan.settings, settings))):
            return False
        if not same_objects(steady.held(), kept.held):
            return False
        self._plans.let_go(kept)  # a step may break it
        if not plan.holds(grads):
            return False
        with self._stepper.uninterrupted:
            plan.step(grads, reread=reread)
            steady.versions = versions
            self._plans.keep_again(kept)
        for mapping in steady.mappings:
            mapping._mapped = steady.mapped
        return True

    @property
    def updates(self) -> int:
        """The number of updates that the layers of the last step have had; 0 where there was none."""
        return self._plans.updates

    @contextmanager
    def evaluating(self, layer_list: Any, way: str) -> Iterator[None]:
        """Have the layers compute with what their weights are at evaluation; `averaged()` wants there to be any."""
        assigned = self._assign(layer_list)
        strict = way == "averaged()"
        if strict:
            _check_weights(assigned)
        ours = [(site, match.optimizer) for site, match in assigned if match.optimizer and not self._is_by_hand(match)]
        viewed = [each for site, leaf in ours if (each := viewed_in_list(site, leaf)) and not way_in_place(each.held)]
        if strict and not viewed:
            refuse_without_views()
        with in_place_of(viewed, way):
            yield

    def _is_by_hand(self, match: Match) -> bool:
        """Whether others' code makes the step; where the optimizer itself came here, by super(), its rule does."""
        return match.optimizer is not self._optimizer and is_by_hand(match)

    def _assign(self, layer_list: Any, given: Given | None = None) -> list[tuple[Site, Match]]:
        optimizer, sites = self._optimizer, list(layer_sites(layer_list, given))
        if asks_for_roles(optimizer):
            sites = with_roles(sites)
        if optimizer._optimizers_by_key is not None and self._warned is not optimizer._optimizers_by_key:
            fitted = (
                (*optimizer._optimizers_by_key,),
                [*optimizer.leaves()],
                [(site.names, site.classes) for site in sites],
            )
            if fitted != self._fitted and (problem := explain_unmatched(optimizer, sites)):
                self._warned = optimizer._optimizers_by_key
                warnings.warn(problem, UserWarning, stacklevel=4)
            self._fitted = fitted
        return [(site, match) for site, match in assign(optimizer, sites) if site.entry is not None]

    def _tell_mappings(self, assigned: Sequence[tuple[Site, Match]]) -> MappedLayers | None:
        """Let each MultiOptimizer know the layers that came to it, for its `map_list`."""
        if self._optimizer._optimizers_by_key is None:
            return None
        layers = MappedLayers(assigned)
        for mapping in {self._optimizer, *(mapping for _, match in assigned for mapping in match.mappings)}:
            mapping._mapped = layers
        return layers

    def _step(self, every: Sequence[Ours], by_hand: Sequence[tuple[Site, Match]], epoch: int) -> _Layers:
        """Update everything, once nothing is left to refuse: first by hand, where others' code may refuse still."""
        ours = [each for each in every if _gradient(each[1]) is not None]
        holder = _Layers(ours, every, self._numbers.settings_of(ours, every, epoch), self._plans)
        elsewhere = self._squares(by_hand)
        ready = self._stepper.ready(holder, holder.kept_plan())
        assert ready is not None  # nothing leaves a step over layers out
        if by_hand:
            plan, grads, reread = ready
            plan.check(grads)
            everything = self._squares([*by_hand, *((site, match) for _, site, match in ours)]) if elsewhere else {}
            self._step_by_hand(by_hand, everything, epoch)
            if not plan.holds(grads):
                ready = holder.make_plan(), grads, reread
        self._stepper.run(holder, ready, elsewhere)
        return holder

    def _squares(self, matched: Sequence[tuple[Site, Match]]) -> dict[int, float]:
        """What these gradients add to the norms over everything, by the norm's owner."""
        squares: dict[int, float] = defaultdict(float)
        for site, match in matched:
            grad = _gradient(site)
            for norm in match.norms if grad is not None else ():
                mean = torch.linalg.vector_norm(grad, dtype=torch.float64).item()
                mean /= self._optimizer._backend_batch_size
                squares[id(norm)] += mean * mean
        return dict(squares)

    def _step_by_hand(self, by_hand: Sequence[tuple[Site, Match]], totals: Mapping[Any, float], epoch: int) -> None:
        """Let each hand-written optimizer update its layers, with gradients scaled by the norms over it."""
        shares: dict[Description, list[tuple[Any, Entry]]] = defaultdict(list)
        for site, match in by_hand:
            assert site.entry is not None
            assert match.optimizer is not None
            (param, grad), states = site.entry
            factor = 1.0
            for norm in match.norms if grad is not None else ():
                assert norm.gradient_clip_norm is not None
                factor *= clip_factor(factor * math.sqrt(totals[id(norm)]), norm.gradient_clip_norm)
            scaled = grad if grad is None or factor == 1 else grad * factor
            shares[match.optimizer].append((site.layer, ((param, scaled), states)))
        for optimizer, owned in shares.items():
            optimizer.optimize(layers_of(owned), epoch)


def clip_factor(norm: float, bound: float) -> float:
    """min(1, bound/norm); of a norm that is NaN, NaN."""
    return bound / norm if not norm <= bound else 1.0


class _Layers:
    """The holder of one step over layers: their plan, if there is one, and the lists that states go into."""

    def __init__(
        self, ours: Sequence[Ours], every: Sequence[Ours], settings: dict[str, Settings], plans: LayerPlans
    ) -> None:
        self._ours, self._every, self._settings, self._plans = ours, every, settings, plans
        self._kept: LayerPlan | None = None
        self._created: list[tuple[list[Tensor], list[Tensor]]] = []  # lists of layers, and what goes into them

    def kept_plan(self) -> Plan | None:
        """The plan of an earlier step over these parameters, if there is one."""
        self._kept = self._plans.take([site.entry[0][0] for _, site, _ in self._ours if site.entry is not None])
        return None if self._kept is None else self._kept.plan

    def news(self, plan: Plan) -> bool | None:
        assert self._kept is not None
        self._kept.take_counts()
        alike = self._kept.keys == self._keys() and all(map(Settings.alike, plan.settings, self._settings.values()))
        return True if alike and same_objects(self._held(), self._kept.held) else None

    def gradients(self) -> list[Tensor | None]:
        return [_gradient(site) for _, site, _ in self._ours]

    def make_plan(self) -> Plan:
        check_matrices((site, match) for _, site, match in self._ours)
        places = {key: place for place, key in enumerate(self._settings)}
        items, self._created, owners = [], [], dict[int, str]()  # of each list of states, the layer
        for index, site, match in self._ours:
            assert site.entry is not None
            assert match.optimizer is not None
            (param, _), states = site.entry
            settings = self._settings[match.key]
            check_parameter(site.label, param)
            check_weight(settings, site.label, param)
            matrices = matrices_of(match.optimizer, site, param)
            program = settings.program_of(param, matrices)
            check_sides(site.label, param, program)
            kept = kept_in_list(states, site, match.optimizer, program, settings, matrices)
            used = [*kept.values()]
            if used and id(states) in owners:
                raise ValueError(
                    f"Two parameters, of {quoted(owners[id(states)])} and of {quoted(site.label)}, have one list of "
                    "states. Give each a list of its own: self.states = [] in the layer's __init__."
                )
            owners[id(states)] = site.label
            self._created.append((states, used))
            count = update_count(used[0] if used else param)
            items.append(
                Item(
                    site.label,
                    param,
                    kept,
                    count,
                    places[match.key],
                    index,
                    matrices=matrices if program.calls else None,
                )
            )
        plan = Plan(items, self.gradients(), list(self._settings.values()))
        self._kept = LayerPlan(plan, self._keys())
        return plan

    def put_in_place(self, plan: Plan) -> None:
        for states, used in self._created:
            if not states:
                states.extend(used)

    def updated(self, plan: Plan) -> None:
        assert self._kept is not None
        for (key, settings), place in zip(self._settings.items(), range(len(self._settings)), strict=True):
            if kept := settings.program.numbers_kept:
                numbers = {name: settings.values[name] for name in kept} | plan.new_numbers.get(place, {})
                keep_numbers((site.entry for _, site, match in self._every if match.key == key and site.entry), numbers)
        self._kept.held = self._held()
        self._plans.keep(self._kept, [site.layer for _, site, _ in self._ours])

    def take_note(
        self, glance: Glance, given: Given, assigned: Sequence[tuple[Site, Match]], mapped: MappedLayers | None
    ) -> None:
        """Have the next step go by what this one has found, if its plan is one of before: else it may not last."""
        kept = self._kept
        assert kept is not None
        try:
            if not self._created and not any(settings.program.numbers_kept for settings in kept.plan.settings):
                places = [place for place, _, _ in self._ours]
                kept.steady = SteadyLayers(glance, given, assigned, places, kept.plan.params, mapped)
        except UnsureError:
            kept.steady = None

    def _keys(self) -> list[str]:
        return [match.key for _, _, match in self._ours]

    def _held(self) -> list[Any]:
        """What all lists of states hold, in order: all of it, states or not."""
        return [state for _, site, _ in self._ours if site.entry is not None for state in site.entry[1]]


def _check_weights(assigned: Sequence[tuple[Site, Match]]) -> None:
    """Refuse layers in which views stand in the place of weights, whichever optimizer has put them there."""
    entries = [site.entry for site, _ in assigned if site.entry]
    if way := way_in_place(tensor for (param, _), states in entries for tensor in (param, *states)):
        refuse_in_place(way)


def _gradient(site: Site) -> Tensor | None:
    """The gradient of a parameter of a layer list."""
    return None if site.entry is None else site.entry[0][1]
