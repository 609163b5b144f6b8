"""The plan: which tensors go into which launch, kept from step to step while it still holds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import compress
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neon.engine.backends import forced, prepare, serving
from neon.engine.backends.capture import check_not_captured
from neon.engine.backends.resident import Resident
from neon.engine.batch import Batch, column
from neon.engine.beside import buckets_of as buckets_by_rows
from neon.engine.calls.owners import buckets_of
from neon.engine.counts import Counts
from neon.engine.early_sums import EarlySums, early_sums
from neon.engine.looks import Looks
from neon.engine.observation import Observation
from neon.engine.program.graph import Node, scalar
from neon.engine.program.kernel import Kernel
from neon.engine.program.lowering import lower
from neon.engine.program.options import GUARD
from neon.engine.program.reductions import exact_sum, kind_of
from neon.engine.program.seen_sums import observed
from neon.engine.program.slots import Formats
from neon.engine.refusals.tensors import check_capturable, check_gradient, check_items
from neon.engine.settings import Item, Reach, Settings
from neon.engine.tensors.alike import Form
from neon.engine.tensors.overlap import Written
from neon.engine.tensors.watch import Likeness, Watch
from neon.messages import quoted


class NotFiniteError(ArithmeticError):
    """A gradient is not finite; `name` is that of its parameter, or None where another process holds it."""

    def __init__(self, name: str | None) -> None:
        super().__init__(f"The gradient of parameter {quoted(name or 'in another process')} is not finite.")
        self.name = name


def launches(
    items: Sequence[Item],
    grad_dtypes: Sequence[torch.dtype],
    settings: Sequence[Settings],
    device: torch.device | None = None,
) -> Iterator[tuple[Kernel, list[int]]]:
    """Which items, by their places, one launch updates with which kernel; `device` is where it is to be, if not there.

    Tensors with the same program, formats, device and reach go together, in buckets where a kernel works beside them.
    """
    alike: dict[tuple[int, Form, torch.dtype], list[int]] = defaultdict(list)
    for position, (item, dtype) in enumerate(zip(items, grad_dtypes, strict=True)):
        alike[item.group, item.form, dtype].append(position)
    members: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for (*_, dtype), positions in alike.items():
        item = items[positions[0]]
        own = settings[item.group]
        states = tuple(slot.dtype for slot in item.kept if slot.auxiliary_of is None)
        formats = Formats(item.param.dtype, dtype, states, own.width, own.storage.splits(item.param))
        program = own.program_of(item.part or item.param, item.matrices)
        members[program, formats, item.param.device, item.reach, item.sharers] += positions
    for (program, formats, here, *_), positions in members.items():
        kernel = lower(program, formats)
        placed = [(each, items[each]) for each in sorted(positions)]
        if kernel.buffers:
            buckets = buckets_of(kernel, placed, device or here)
        elif kernel.in_one_go:
            buckets = buckets_by_rows(kernel, placed)
        else:
            buckets = [[place for place, _ in placed]]
        yield from ((kernel, bucket) for bucket in buckets)


class Plan:
    """Everything that a step needs and that does not change from step to step.

    `steps[i]` shows the number of updates of item i; on the host all of them are one vector, so that one
    addition counts them all. `shared` lists by their levels, for processes that hold other parameters than this one,
    the sums that all of them take part in, whether or not they hold something that counts in them. With `resident`
    counts are on its device, and steps can be left out there; `capturable`: graphs may go on with them unseen.
    `new_numbers` are those of groups that persist, after a step, by the places of their settings.
    """

    def __init__(
        self,
        items: Sequence[Item],
        grads: Sequence[Tensor | None],
        settings: Sequence[Settings],
        shared: Mapping[Reach, Mapping[int, Sequence[Hashable]]] | None = None,
        *,
        resident: Resident | None = None,
        capturable: bool = False,
    ) -> None:
        self.items = list(items)
        self._devices = {item.param.device for item in items}
        check_not_captured(self._devices)
        check_items(items, settings)
        self._check(grads)
        self.settings = list(settings)
        self._shared = dict(shared or {})
        self.written = Written(self.items)
        self._backend = forced()
        self.params = [item.param for item in items]
        self.resident, self._capturable = resident, capturable
        self.counts = Counts(items) if resident is None else resident.counts(items)
        self.steps = self.counts.each
        self._totals: dict[Hashable, float] = {}
        self.new_numbers: dict[int, dict[str, float]] = {}
        self.observation: Observation | None = None  # of the last step that was looked at
        kept = [tensor for item in items for tensor in item.kept.values()]
        self.watch = Watch([*self.params, *kept, *self.steps])
        # Of a gradient that is not there yet, the most likely type.
        self._grad_dtypes = [p.dtype if g is None else g.dtype for p, g in zip(self.params, grads, strict=True)]
        self._launches = self._make_batches()
        self.early: list[EarlySums] | None = None  # sums of gradients that are taken before the step
        self._rehearsed = False  # whether states are to start anew in the first step
        self._present: list[bool] | None = None
        self.alike: Likeness | None = None
        self._take(grads)
        given = self._given(grads)
        self._check_apart(given, [*map(Tensor.data_ptr, given)])

    def _make_batches(self) -> list[Batch]:
        return [
            self._make_batch(self.items[positions[0]].param.device, kernel, positions)
            for kernel, positions in launches(self.items, self._grad_dtypes, self.settings)
        ]

    def _make_batch(self, device: torch.device, kernel: Kernel, positions: Sequence[int]) -> Batch:
        backend = serving(device)
        if self._capturable:
            check_capturable(device, backend.capturable)
        kept = {} if backend.resident is None else {"counts": self.counts, "capturable": self._capturable}
        return backend.batch(kernel, prepare(kernel, backend), self.items, positions, self.settings, **kept)

    def holds(self, grads: Sequence[Tensor | None]) -> bool:
        """Whether its tensors are still what and where they were, and it can take these gradients for them."""
        if not self.watch.unchanged() or self._backend != forced() or self._rehearsed:
            return False
        if not self.counts.unchanged():
            self.counts.reread()
            self.alike = self._present = None
        return self._are_like_before(grads) or self._fits(grads)

    def sum_early(self) -> list[EarlySums]:
        """Have sums of gradients taken as these arrive, where that can be done: what does, which has to be told."""
        for batch in self._launches:
            batch.early = early_sums(batch)
        self.early = [batch.early for batch in self._launches if batch.early is not None]
        return self.early

    def rehearse(self) -> None:
        """Where states start at a value of their group, hold no longer: they start anew, as rates were 0 now."""
        programs = {program for settings in self.settings for program in settings.programs}
        self._rehearsed = any(state.starts_at_value for program in programs for state in program.states.values())

    def _are_like_before(self, grads: Sequence[Tensor | None]) -> bool:
        """Whether the same parameters have gradients as in the last step, of the same kinds."""
        return (
            self.alike is not None
            and (self._all or all(grad is None for grad in compress(grads, self._absent)))
            and self.alike.holds(self._given(grads))
        )

    def _fits(self, grads: Sequence[Tensor | None]) -> bool:
        """Whether gradients that are unlike those of the last step can be taken; what nobody can take is refused."""
        expected = zip(grads, self._grad_dtypes, strict=True)
        if any(grad is not None and grad.dtype != dtype for grad, dtype in expected):
            return False
        self._check(grads)
        self._take(grads)
        return True

    def _check(self, grads: Sequence[Tensor | None]) -> None:
        for item, grad in zip(self.items, grads, strict=True):
            if grad is not None:
                check_gradient(item, grad)

    def check(self, grads: Sequence[Tensor | None]) -> None:
        """Refuse what a step with these gradients would refuse; the plan has to hold."""
        self._check(grads)
        given = self._given(grads)
        self._check_apart(given, [*map(Tensor.data_ptr, given)])

    def _check_apart(self, given: Sequence[Tensor], addresses: Sequence[int]) -> None:
        self.written.check_gradients(self._given(self.items), given, addresses)

    def _take(self, grads: Sequence[Tensor | None]) -> None:
        """Prepare for gradients like these; a parameter without one is left out."""
        self._addresses: list[int] = []
        present = [grad is not None for grad in grads]
        given = [grad for grad in grads if grad is not None]
        if present == self._present:
            self.alike = Likeness(given)  # worth its making only where it lasts
        else:
            self.alike = None
            self._select(present)
        self.written.forget()
        for batch in self.batches:
            batch.inspect(given)

    def _select(self, present: list[bool]) -> None:
        check_not_captured(self._devices)
        mask, steps = np.array(present, bool), self.counts.read()
        self.batches = [batch for batch in self._launches if batch.select(mask, steps)]
        levels = {level for batch in self.batches for level in batch.kernel.reducing}
        levels |= {level for by_level in self._shared.values() for level, scopes in by_level.items() if scopes}
        self._guards = {scope for batch in self.batches for scope in batch.guard_scopes()}
        self._guards |= {GUARD for by_level in self._shared.values() if GUARD in by_level.get(0, ())}
        self._reducing = {level: self._places(level) for level in sorted(levels)}
        self._numbered = [batch for batch in self.batches if batch.kernel.numbers]
        self._on_device = {level: self._device_sums(level) for level in self._reducing}
        alone = any(batch.kernel.sums_alone and batch.reach is not None for batch in self.batches)
        if self._capturable and (alone or None in self._on_device.values()):
            raise ValueError(
                "A rule with norms of whole tensors cannot be had with capturable=True for parameters of which other "
                "processes hold parts: the host adds these norms up, and a graph that is replayed has no host. Leave "
                "capturable out."
            )
        self._present, self._absent = present, [not given for given in present]
        self._all = all(present)
        self.counts.select(mask)
        self.updated = self._given(self.params)

    def _device_sums(self, level: int) -> Any:
        """The sums of a level, where one device has all that is added up and nobody else needs to know."""
        places = {batch: place for batch, place in self._reducing[level] if batch.kernel.stages[place].reductions}
        kinds = {(batch.device, batch.reach, batch.summing) for batch in places}
        if len(kinds) != 1 or self._shared or self._guards:
            return None
        [(_, reach, summing)] = kinds
        return summing(places) if summing is not None and reach is None else None

    def _places(self, level: int) -> list[tuple[Batch, int]]:
        """The batches that reduce at a level, each with the place of its stage."""
        places = [(batch, batch.kernel.reducing.get(level)) for batch in self.batches]
        return [(batch, place) for batch, place in places if place is not None]

    def _given(self, values: Sequence[Any]) -> Sequence[Any]:
        """The values of the parameters that have gradients."""
        return values if self._all else [*compress(values, self._present or ())]

    def step(
        self,
        grads: Sequence[Tensor | None],
        elsewhere: Mapping[int, float] | None = None,
        reread: bool = True,
        inputs: Mapping[str, Any] | None = None,
        found: Tensor | None = None,
        *,
        look: bool = False,
    ) -> None:
        """Update every parameter that has a gradient, once; the plan has to hold. To `look` leaves an `observation`.

        `elsewhere` gives sums of squares of gradients that this plan does not update but that count in a
        norm, by the id of the norm's owner. Without `reread`, the numbers of all settings are as they were.
        `inputs` are the numbers that only this step has; those that are tensors on the device are not waited for.
        Where `found`, a number on the device of `resident`, is not 0, the step is left out: that is counted, and
        nothing else changes.

        Raises `NotFiniteError`, with nothing changed, where a guarded gradient is not finite.
        """
        given = self._given(grads)
        addresses = list(map(Tensor.data_ptr, given))
        if 0 in addresses:  # empty, or without memory
            self._check(grads)
        moved = addresses != self._addresses
        if moved:
            self._check_apart(given, addresses)
            self._addresses = addresses
        numbers = {scalar(name): value for name, value in inputs.items()} if inputs else {}
        for batch in self.batches:
            batch.reserve()
        for batch in self.batches:
            batch.bind(given, addresses, numbers, moved=moved, reread=reread)
        taken: set[Hashable] = set()
        for batch in self._numbered:
            batch.write_numbers(taken)
        self._be_ready(look=look)
        if self.resident is not None:
            self.resident.follow(found)
        try:
            self._launch(elsewhere or {}, look=look)
        except NotFiniteError:
            for batch in self.batches:
                batch.release()
            raise
        for batch in self.batches:
            batch.finish()
        # The kernels wrote through addresses: tell autograd, so that the use of a stale value is caught.
        torch.autograd.graph.increment_version(self.updated)
        self.counts.add_one()

    @property
    def is_plain(self) -> bool:
        """Whether its step is a launch for each batch, and counts that are the host's own."""
        return self.resident is None and not self._shared and isinstance(self.counts, Counts) and self.counts.are_own

    def places_of_gradients(self) -> list[int]:
        """Where in the tables of its batches the addresses of gradients go, in the order of these."""
        found = {}
        for batch in self.batches:
            first, width = batch.table.ctypes.data + batch.table.itemsize, batch.table.strides[0]
            found |= {place: first + width * line for line, place in enumerate(batch.places())}
        return [found[place] for place in range(len(found))]

    def left_out(self) -> list[Tensor]:
        """Its parameters without a gradient."""
        return [*compress(self.params, self._absent)]

    def forget_addresses(self) -> None:
        """Read those of gradients anew, for somebody else has made steps in the tables of the batches."""
        self._addresses = []

    def _be_ready(self, *, look: bool) -> None:
        """Have batches look, or not; what is compiled is so before anything is written."""
        for batch in self.batches:
            if look and batch.looks is None:
                kernel = observed(batch.kernel)
                batch.looks = Looks(batch, kernel, prepare(kernel, serving(batch.device)))
            if batch.looks is not None:
                batch.looks.looked = look

    def _launch(self, elsewhere: Mapping[int, float], *, look: bool) -> None:
        """Run all stages, those with reductions level by level, for their sums reach over launches."""
        sums: dict[Batch, dict[Node, Any]] = {batch: {} for batch in self.batches}
        self._totals = {}
        for level, reducing in self._reducing.items():
            for batch, place in reducing:
                batch.run(place, sums[batch])
            on_device = self._on_device[level]
            if on_device is None or elsewhere:
                self._sum(reducing, level, elsewhere, sums)
            else:
                on_device.take()
        if look:
            seen = [batch.looks.run(sums[batch]) for batch in self.batches]
            self.observation = Observation(self.items, seen, None if self.resident is None else self.resident.stop)
        else:
            for batch in self.batches:
                batch.run(len(batch.kernel.stages) - 1, sums[batch])
        self.new_numbers = self._find_numbers(sums) if self._numbered else {}

    def _find_numbers(self, sums: Mapping[Batch, dict[Node, Any]]) -> dict[int, dict[str, float]]:
        """The new numbers of groups, but for those that a device writes; an optimizer's are all its groups'."""
        new: dict[Hashable, float] = {}
        batches = (batch for batch in self._numbered if not batch.keeps_numbers)
        made = [number for batch in batches for number in batch.new_numbers(sums[batch])]
        for place, name, value in sorted(made, key=itemgetter(0)):
            new.setdefault(self.settings[place].owners[name], value)
        if not new:
            return {}
        found: dict[int, dict[str, float]] = {}
        for place, settings in enumerate(self.settings):
            found[place] = {name: new[owner] for name, owner in settings.owners.items() if owner in new}
        for batch in self.batches:
            batch.take_numbers(found)
        return found

    def _sum(
        self,
        reducing: Sequence[tuple[Batch, int]],
        level: int,
        elsewhere: Mapping[int, float],
        sums: dict[Batch, dict[Node, Any]],
    ) -> None:
        """Combine the partials of each scope, over all launches and processes that it reaches, rounded once."""
        total: dict[Hashable, list[float]] = {}
        if level == 0:  # the norms that options clip by are all taken in the first pass
            total = {owner: [value] for owner, value in elsewhere.items()}
        apart: dict[Reach, dict[Hashable, list[float]]] = {
            reach: {scope: [] for scope in by_level.get(level, ())} for reach, by_level in self._shared.items()
        }
        combine: dict[Hashable, Any] = defaultdict(lambda: exact_sum)
        for batch, place in reducing:
            partials, reductions = batch.passes[place].partials, batch.kernel.stages[place].reductions
            for number, (reduction, shares) in enumerate(zip(reductions, batch.shares[place], strict=True)):
                if shares.own:
                    sums[batch][reduction] = batch.own_sums(place, number)
                    continue
                combine |= dict.fromkeys(shares.chunks, kind_of(reduction).combine)
                for scope, chunks in shares.chunks.items():
                    reach = batch.reach and self._sharing(batch.reach, scope, level)
                    sums_here = total if reach is None else apart.setdefault(reach, {})
                    sums_here.setdefault(scope, []).extend(partials[chunks, number].tolist())
        for reach, lists in apart.items():
            if lists:
                for share in reach.gather([combine[scope](values) for scope, values in lists.items()]):
                    for scope, value in zip(lists, share, strict=True):
                        total.setdefault(scope, []).append(value)
        found = {scope: combine[scope](values) for scope, values in total.items()}
        self._totals |= found
        if level == 0 and not all(math.isfinite(found[scope]) for scope in self._guards):
            raise NotFiniteError(self._first_not_finite())
        for batch, place in reducing:
            for reduction, shares in zip(batch.kernel.stages[place].reductions, batch.shares[place], strict=True):
                if not shares.own:
                    sums[batch][reduction] = column([found[scope] for scope in shares.of_rows])

    @property
    def kept_for_graphs(self) -> list[Any]:
        """What a graph that this step went into works on besides its tensors, and needs at each replay."""
        kept = self._on_device, self.counts.kept_for_graphs
        return [(batch.passes, batch.kept_for_graphs, kept) for batch in self.batches if batch.capturing]

    @property
    def totals(self) -> Mapping[Hashable, float]:
        """The sums of the last step by scope; those that a device has kept are waited for."""
        kept = (sums.totals() for sums in self._on_device.values() if sums is not None)
        return {scope: value for totals in kept for scope, value in totals.items()} | self._totals

    def _sharing(self, reach: Reach, scope: Hashable, level: int) -> Reach | None:
        """The processes that a sum goes over: of a tensor that one of them has whole, only what was agreed on."""
        return reach if reach.alike or scope in self._shared.get(reach, {}).get(level, ()) else None

    def anywhere(self, holds: bool) -> bool:
        """Whether something holds in any of the processes that make this step together."""
        reaches = dict.fromkeys((*self._shared, *(item.reach for item in self.items)))
        for reach in reaches:
            if reach is not None and (reach.alike or reach in self._shared):
                holds = any(flag for [flag] in reach.gather([float(holds)]))
        return holds

    def _first_not_finite(self) -> str | None:
        """The name of the first parameter whose guard is not finite; every process has come here."""
        found = [place for batch in self.batches if (place := batch.first_not_finite()) is not None]
        first = min(found, default=math.inf)
        for reach in dict.fromkeys(batch.reach for batch in self.batches):
            if reach is not None and reach.alike:
                first = min(first, *(place for [place] in reach.gather([first])))
        return self.items[int(first)].name if math.isfinite(first) else None
