"""Batches on a device that runs on its own: their tables lie there, and within a step nothing is waited for.

What the host knows (addresses, numbers of groups) it sends when it has changed; step counts, sums and
all that depends on them stay on the device, and so do numbers that are tensors there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neon.engine.backends import capture, triton_launch, triton_rows
from neon.engine.backends.resident import DeviceCounts
from neon.engine.backends.triton_launch import Launch
from neon.engine.backends.triton_numbers import counts_steps, numbers_of, reductions_of
from neon.engine.batch import Batch, column
from neon.engine.counts import Counts
from neon.engine.program.graph import REDUCTION, Node, scalar, walk
from neon.engine.program.kernel import Stage
from neon.engine.program.reductions import kind_of
from neon.engine.program.spaces import COLUMNS
from neon.engine.program.trace import PER_STEP
from neon.engine.refusals.tensors import check_steady_calls


class DevicePass:
    """What one stage of a batch reads and writes besides the tensors, and how it is launched."""

    def __init__(self, batch: DeviceBatch, number: int) -> None:
        kernel, executable = batch.kernel, batch.executable
        stage, last = kernel.stages[number], number == len(kernel.stages) - 1
        inputs = [*walk(stage.scalars, into_reductions=False)]
        self.steady = not any(n.op == REDUCTION or n.label in PER_STEP for n in inputs)
        self.steady = self.steady and not (last and counts_steps(kernel)) and not stage.random
        steps = batch.steps if last else batch.steps_before_last
        rows, chunks = len(batch.row_groups), len(batch.whole if stage.narrow else batch.chunks)
        self.scalars = torch.empty(rows, len(stage.scalars), dtype=kernel.formats.compute, device=batch.device)
        numbers = executable.numbers[number]
        self.evaluate = None
        if numbers is not None:
            grid = (-(-rows // triton_launch.NUMBER_ROWS),)
            tables = (batch.numbers, batch.addresses_of_sums, batch.counts, steps, self.scalars)
            kept = (batch.kept, batch.stop) if last and kernel.numbers else ()
            self.evaluate = Launch(numbers, grid, (*tables, *kept, rows), ROWS=triton_launch.NUMBER_ROWS)
        lines = batch.lines_of_whole if stage.narrow else batch.lines_of_chunks
        parts = _parts(batch, stage)
        sums = (chunks * parts, len(stage.seen)) if stage.seen else (chunks, len(stage.reductions))
        self.sums = torch.empty(sums, dtype=torch.float64, device=batch.device)
        addresses = batch.whole_addresses if stage.narrow else batch.addresses
        tables = (lines, addresses, self.scalars, steps, self.sums, batch.stop)
        constants = {"TILE": triton_launch.TILE, "PART": triton_launch.PART}
        self.launches = [
            Launch(executable.stages[number], (chunks, parts), tables, **constants, ALIGNED=aligned)
            for aligned in (False, True)
        ]

    @property
    def partials(self) -> npt.NDArray[np.float64]:
        """The sums of the chunks, for a host that adds them to others: it waits for them."""
        return self.sums.cpu().numpy()


def _parts(batch: DeviceBatch, stage: Stage) -> int:
    """How many programs share a chunk, or the matrices of a tensor."""
    sides = [whole.sides for whole in (batch.whole_of if stage.narrow else batch.beside) if whole is not None]
    if stage.narrow:
        return min(1024, max(1, *(side.matrices for side in sides)))
    if stage.reduces:
        columns = max((side.columns for side in sides), default=0)
        return 1 + (-(-columns // triton_rows.WIDTH) if any(r.space is COLUMNS for r in stage.along) else 0)
    return -(-int(batch.chunks[:, 2].max(initial=1)) // triton_launch.PART)


class Scattered:
    """Numbers that are tensors on the device, and their places in a table: all are put there at once."""

    def __init__(
        self, placed: Sequence[tuple[int, Tensor]] = (), put: Callable[[npt.NDArray[Any]], Tensor] = torch.from_numpy
    ) -> None:
        self.placed = placed
        self._tensors = [*{id(value): value for _, value in placed}.values()]
        numbers = {id(value): number for number, value in enumerate(self._tensors)}
        self._values, self._addresses = list[Tensor](), list[int]()
        self._places = put(np.array([place for place, _ in placed], np.int64))
        self._which = put(np.array([numbers[id(value)] for _, value in placed], np.int64))

    def are(self, placed: Sequence[tuple[int, Tensor]]) -> bool:
        """Whether these are the same tensors, in the same places."""
        return [(place, id(value)) for place, value in self.placed] == [(place, id(value)) for place, value in placed]

    @property
    def read(self) -> list[Tensor]:
        """What is read to put them there."""
        return [*self._values, self._places, self._which] if self.placed else []

    def put_into(self, table: Tensor) -> None:
        """Read them, and write each to its places."""
        if self.placed:
            addresses = [tensor.data_ptr() for tensor in self._tensors]
            if addresses != self._addresses:  # theirs may move: tensor.data = ...
                self._values = [tensor.detach().reshape(1) for tensor in self._tensors]
                self._addresses = addresses
            values = torch.cat(self._values).to(table.dtype)
            table.index_copy_(0, self._places, values.index_select(0, self._which))


class DeviceSums:
    """The sums of one stage of each of some batches, taken and used on one device."""

    def __init__(self, stages: Mapping[DeviceBatch, int]) -> None:
        from neon.engine.backends.triton_intrinsics import sum_up

        partials: dict[Hashable, list[npt.NDArray[np.int64]]] = {}
        by_size: dict[Hashable, bool] = {}
        for batch, stage in stages.items():
            first = batch.passes[stage].sums.data_ptr()
            places = first + 8 * np.arange(batch.passes[stage].sums.numel(), dtype=np.int64)
            columns = places.reshape(batch.passes[stage].sums.shape).T
            reductions = batch.kernel.stages[stage].reductions
            for reduction, places_of, shares in zip(reductions, columns, batch.shares[stage], strict=True):
                by_size |= dict.fromkeys(shares.chunks, kind_of(reduction).by_size)
                for scope, chunks in shares.chunks.items():
                    partials.setdefault(scope, []).append(places_of[chunks])
        counts = [sum(map(len, parts)) for parts in partials.values()]
        device = next(iter(stages)).device
        addresses = torch.from_numpy(np.concatenate([part for parts in partials.values() for part in parts])).to(device)
        ends = torch.from_numpy(np.cumsum([0, *counts])).to(device)
        self._totals = torch.zeros(len(counts), dtype=torch.float64, device=device)
        lanes = min(1024, 1 << max(max(counts) - 1, 0).bit_length())
        kinds = torch.tensor([*by_size.values()], dtype=torch.int32, device="cpu").to(device)
        self._launch = Launch(sum_up, (len(counts),), (addresses, ends, kinds, self._totals), LANES=lanes)
        self._place = {scope: place for place, scope in enumerate(partials)}
        self._readers = []
        for batch, stage in stages.items():
            of_rows = [[self._place[scope] for scope in shares.of_rows] for shares in batch.shares[stage]]
            places = np.array([np.broadcast_to(places, len(batch.row_groups)) for places in of_rows], np.int64)
            self._readers.append((batch, batch.lines_of(stage), self._totals.data_ptr() + 8 * places))

    def take(self) -> None:
        """Add up what the stages of the level have left."""
        self._launch()
        for batch, lines, addresses in self._readers:
            batch.read_sums(lines, addresses)

    def totals(self) -> dict[Hashable, float]:
        """The sums by scope, for a host that wants to know: it waits for them."""
        return dict(zip(self._place, self._totals.tolist(), strict=True))


class DeviceBatch(Batch):
    """The tensors of one launch, with the tables that it reads on their device."""

    passes: list[Any]
    summing = DeviceSums

    @property
    def keeps_numbers(self) -> bool:
        """Whether the device writes the numbers of groups that persist: they lie on it."""
        names = self.kernel.numbers.keys() & self.kernel.program.numbers_kept
        values = (self._settings[group].values[name] for group in self.row_groups for name in names)
        return bool(self.kernel.numbers) and all(map(self._is_here, values))

    def __init__(self, *arguments: Any, counts: Counts | DeviceCounts, capturable: bool) -> None:
        super().__init__(*arguments)
        self._counts, self._capturable = counts if isinstance(counts, DeviceCounts) else None, capturable
        if capturable:
            check_steady_calls(self.kernel)
        # Tensors of which one goes on in a graph without the other have counts of their own.
        self._rows_apart |= capturable
        self.stop = torch.zeros(1, dtype=torch.float32, device=self.device)
        if self._counts is not None:
            self.stop = self._counts.resident.stop
        self.kept_for_graphs = list[Tensor]()  # what a graph copies from, and by, at each replay
        self._replayed = False  # whether a graph may have written to the tables since the last step

    def _make_passes(self) -> list[DevicePass | None]:
        self.lines_of_chunks = self._put(self.chunks)
        self.lines_of_whole = self._put(self.whole) if self.kernel.by_rows else None
        self.addresses = self._put(np.zeros_like(self.table))
        self.whole_addresses = self.addresses if self._shared is None else self._put(self.whole_table)
        rows = len(self.row_groups)
        self.steps = self._put(self.row_steps - 1)
        self.steps_before_last = torch.zeros_like(self.steps)  # what earlier stages draw random bits by
        # Each row's count is its own, which the last stage counts on, or lies among those of the optimizer.
        own_counts = self.steps.data_ptr() + 8 * np.arange(rows, dtype=np.int64)
        self.counts = self._put(
            own_counts if self._counts is None else self._counts.addresses[self._places][self.first_of_row]
        )
        self._numbers_read = np.full((len(numbers_of(self.kernel)), rows), np.nan)
        self.numbers = self._put(self._numbers_read)
        # Sums that the host adds up come into a table of our own, line by line; where others are, is told.
        self._reductions = reductions_of(self.kernel)
        self._sums_given = np.zeros((len(self._reductions), rows))
        self._given = self._put(self._sums_given)
        own = self._given.data_ptr() + 8 * np.arange(self._sums_given.size, dtype=np.int64)
        self._where = own.reshape(self._sums_given.shape)
        self._own = self._where.copy()
        self.addresses_of_sums = self._put(own)
        self._aligned = False
        self._sums_between: dict[int, DeviceSums] = {}
        # Where the new numbers of groups go that persist: 0 for rows that write none.
        self._kept_at = np.zeros((len(self.kernel.numbers), rows), np.int64)
        self.kept = self._put(self._kept_at)
        levels = len(self.kernel.stages) - 1  # each of which has the places of its sums sent
        sent = (self.table, self._numbers_read, self._kept_at, *[self._where] * levels)
        self._tensors = Scattered()
        self._reserve = capture.Reserve((array.nbytes for array in sent), self.device) if self._capturable else None
        return super()._make_passes()

    def make_pass(self, place: int) -> DevicePass | None:
        return None if self.kernel.stages[place].calls else DevicePass(self, place)

    def placed_here(self, array: npt.NDArray[Any]) -> Tensor:
        return self._put(array)

    def left_to_see(self, last: DevicePass) -> tuple[Tensor, Tensor]:
        return last.sums, last.scalars

    def bind(
        self,
        grads: Sequence[Tensor],
        addresses: Sequence[int],
        step_inputs: Mapping[Node, Any],
        *,
        moved: bool,
        reread: bool,
    ) -> None:
        """Take this step's gradients and numbers before anything is written; what has changed goes to the device."""
        self.capturing = capture.capturing(self.device)
        if self.capturing and not self._capturable:
            raise RuntimeError(
                "A step is being captured in a graph of the device, whose replays would not be counted. "
                "Give capturable=True to attach, or to the class."
            )
        if self._reserve is not None and not self.capturing:
            self._reserve.renew()
        self._replayed |= self.capturing
        on_device = {node: value for node, value in step_inputs.items() if self._is_here(value)}
        laid_at = self._laid_at
        same_addresses = self._bound and not (moved or self._replayed)
        new_numbers = self.kernel.numbers and not self.keeps_numbers  # of the last step, which the host has found
        same_numbers = self._numbers and not (reread or step_inputs or self._replayed or new_numbers)
        step_inputs = {**step_inputs, **dict.fromkeys(on_device, math.nan)}
        super().bind(grads, addresses, step_inputs, moved=moved, reread=reread)
        if not same_addresses or self._copied or self._staged or self._laid_at != laid_at:
            self._send(self.table, self.addresses)
            if self._shared is not None:
                self._send(self.whole_table, self.whole_addresses)
            self._aligned = not (self.table[:, : len(self.kernel.tensors)] & 15).any() and not self._is_odd
        if not same_numbers:
            self._send_numbers()
        lines = self.numbers.view(-1, len(self.row_groups))
        for node, value in on_device.items():
            if node.label in numbers_of(self.kernel):
                lines[numbers_of(self.kernel).index(node.label)].copy_(value.detach().reshape(1))
        self._tensors.put_into(self.numbers)
        if self.capturing:
            self.kept_for_graphs += self._tensors.read
            self.kept_for_graphs += [self._arena.memory] if self._shares_memory else []
        if on_device or self._tensors.placed or self._capturable:
            self._evaluated = False  # what a graph does not compute it will not compute anew

    def read_numbers(self) -> None:
        """The groups' numbers; of a tensor on this device NaN stands in for what is read there at each step."""
        names = [numbers_of(self.kernel).index(node.label) for node in self._number_nodes]
        given = {group: self._settings[group].given(self.kernel.program) for group in dict.fromkeys(self.row_groups)}
        tensors = [
            (line * len(self.row_groups) + row, value)
            for row, group in enumerate(self.row_groups)
            for line, value in zip(names, given[group], strict=True)
            if self._is_here(value)
        ]
        for name, values in self._own_numbers().items():  # each tensor has a row of its own
            line = numbers_of(self.kernel).index(name) * len(self.row_groups)
            tensors += [(line + row, value) for row, value in enumerate(values)]
        if not self._tensors.are(tensors):
            self._tensors = Scattered(tensors, self._put)
        read = {g: [math.nan if self._is_here(v) else float(v) for v in values] for g, values in given.items()}
        columns = map(column, zip(*(read[group] for group in self.row_groups), strict=True))
        self._numbers = dict(zip(self._number_nodes, columns, strict=True))
        self._numbers |= {scalar(name): math.nan for name in self.kernel.program.own_numbers}
        self._evaluated = False

    def _find_cells(self) -> dict[str, list[Any]]:
        return {}  # the device reads and writes them

    def _is_here(self, value: Any) -> bool:
        return isinstance(value, Tensor) and value.device == self.device

    def _send_numbers(self) -> None:
        read = np.empty_like(self._numbers_read)
        for line, name in enumerate(numbers_of(self.kernel)):
            read[line] = self._numbers[scalar(name)]
        if self._replayed or not np.array_equal(read, self._numbers_read, equal_nan=True):
            self._numbers_read = read
            self._send(read, self.numbers)
            self._evaluated = False

    @property
    def _is_odd(self) -> bool:
        """Whether rows begin anywhere, not where whole vectors of numbers do."""
        return any(beside is not None and beside.sides.columns % 16 for beside in self.beside)

    def _run(self, level: int, sums: Mapping[Node, Any]) -> None:
        current = self.passes[level]
        if sums:
            lines = [*map(self._reductions.index, sums)]
            for line, values in zip(lines, sums.values(), strict=True):
                self._sums_given[line] = values
            self._send(self._sums_given, self._given)
            self.read_sums(lines, self._own[lines])
        if current.evaluate is not None and not (self._evaluated and current.steady):
            current.evaluate()
        if self.elements:
            current.launches[self._aligned]()

    def write_numbers(self, taken: set[Hashable]) -> None:
        """Have the device write the new numbers that persist, each by the first row that nobody was before."""
        places, own, keeps = np.zeros_like(self._kept_at), self._own_numbers(), self.keeps_numbers
        for line, name in enumerate(self.kernel.numbers):
            if name in own:
                places[line] = [*map(Tensor.data_ptr, own[name])]
            for row, group in enumerate(self.row_groups if keeps and name not in own else ()):
                if (key := self._settings[group].owners[name]) not in taken:
                    taken.add(key)
                    places[line, row] = self._settings[group].values[name].data_ptr()
        if self._replayed or not np.array_equal(places, self._kept_at):
            self._kept_at = places
            self._send(places, self.kept)

    def _known_for(self, stage: Stage) -> dict[Node, Any]:
        """The numbers that calls are made with; for those that the device alone knows it is waited."""
        known = {**self._numbers}
        names = {node.label for node in stage.host.inputs if node.op != REDUCTION}
        if "step" in names and self._counts is not None:
            known[scalar("step")] = column((self._counts.read()[self._places][self.first_of_row] + 1).tolist())
        for place, (name, _) in enumerate(self.kernel.program.places):
            node = self._number_nodes[place]
            given = [self._settings[group].given(self.kernel.program)[place] for group in self.row_groups]
            if name in names and any(map(self._is_here, given)):
                known[node] = column([*map(float, given)])
        return known

    def _left_out(self) -> Tensor | None:
        return self.stop

    def _sums_of(self, place: int) -> dict[Node, Any]:
        if self.reach is not None and self.reach.alike:
            return super()._sums_of(place)
        if place not in self._sums_between:
            self._sums_between[place] = DeviceSums({self: place})
        self._sums_between[place].take()
        return {}

    def lines_of(self, level: int) -> list[int]:
        """The lines of the table of addresses that the sums of a level have."""
        return [*map(self._reductions.index, self.kernel.stages[level].reductions)]

    def read_sums(self, lines: Sequence[int], addresses: npt.NDArray[np.int64]) -> None:
        """Have the numbers computed from the sums at these addresses, one for each row."""
        if self._replayed or not np.array_equal(self._where[lines], addresses):
            self._where[lines] = addresses
            self._send(self._where, self.addresses_of_sums)

    def _put(self, array: npt.NDArray[Any]) -> Tensor:
        """A new table on the device."""
        source = np.array(array).reshape(-1)
        table = torch.empty(source.shape, dtype=torch.from_numpy(source).dtype, device=self.device)
        self._send(source, table)
        return table

    def _send(self, array: npt.NDArray[Any], table: Tensor) -> None:
        """Send what a table holds from now on, without waiting until it is there."""
        source = torch.from_numpy(array.reshape(-1))
        if self.capturing and self._reserve is not None:
            source = self._reserve.take(array.reshape(-1))
            self.kept_for_graphs.append(source)
        elif self.device.type != "cpu":
            source = source.pin_memory()  # torch keeps such memory until the copy is done
        table.copy_(source, non_blocking=True)
