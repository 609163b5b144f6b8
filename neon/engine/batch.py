"""A batch: tensors that share a kernel, as the tables that one launch reads.

The table of addresses has a line per parameter (weight, gradient, states, random key, step, offset), the
table of chunks a line per range of a parameter, the table of scalars a line per distinct set of
numbers: 500 parameter groups cost what one costs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from itertools import compress
from operator import itemgetter
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from neon.engine.arena import Arena, arena_of
from neon.engine.beside import Beside, apart, within
from neon.engine.calls.owners import Owned, sharing_of
from neon.engine.calls.stacks import Laid, Stacks
from neon.engine.program import random_bits as random
from neon.engine.program.graph import REDUCTION, Node, scalar
from neon.engine.program.kernel import CHUNK, Kernel, Stage
from neon.engine.program.reductions import kind_of
from neon.engine.program.spaces import OPTIMIZER, PAIRS, TENSOR
from neon.engine.program.trace import PER_STEP
from neon.engine.settings import Item, Settings, Sharing
from neon.engine.tensors.layout import flat, is_dense, like_layout, same_layout
from neon.engine.tensors.weight_matrices import ONE_MATRIX
from neon.engine.wholes import Whole, Wholes

STEP = scalar("step")


class Shares(NamedTuple):
    """The sums that a reduction contributes to: the lines of the chunk table for each, and which a row reads.

    Where there is one sum, it is that of all rows. `own`: each row has its own, to which nobody else adds.
    """

    chunks: dict[Hashable, Any]
    of_rows: list[Hashable]
    own: bool = False


class Room(NamedTuple):
    """How many bytes a batch works in: those that batches which run one after another share, and its own."""

    shared: int
    own: int


class Pass:
    """What one stage of a batch reads and writes besides the tensors, at addresses that stay."""

    def __init__(self, batch: Batch, stage: Stage) -> None:
        real = np.float64 if batch.kernel.formats.compute == torch.float64 else np.float32
        self.host = stage.host
        self.steady = not any(node.label in PER_STEP or node.op == REDUCTION for node in self.host.inputs)
        self.scalars = np.empty((len(batch.row_groups), len(stage.scalars)), real)
        self.chunks = batch.whole if stage.narrow else batch.chunks
        self.partials = np.empty((len(self.chunks), len(stage.reductions) + len(stage.seen)))
        tables = (self.chunks, batch.whole_table if stage.narrow else batch.table, self.scalars, self.partials)
        # The chunk to take next, the number of chunks, and where the tables are.
        self.context = np.array([0, len(self.chunks), *(t.ctypes.data for t in tables)], np.int64)
        self.elements = batch.narrow_elements if stage.narrow else batch.elements
        self.address = self.context.ctypes.data
        self._only_row = memoryview(self.scalars[0]) if len(self.scalars) == 1 else None

    def evaluate(self, known: Mapping[Node, Any]) -> None:
        """Compute the numbers that the stage reads."""
        if self._only_row is not None:
            for column, value in enumerate(self.host.evaluate(known)):
                self._only_row[column] = value
        else:
            with np.errstate(all="ignore"):
                for column, value in enumerate(self.host.evaluate(known)):
                    self.scalars[:, column] = value


class Batch:
    """The tensors of one launch; `positions` are the places of its members among all of a plan's.

    The tables of all members are made once; `items` and the tables that a launch reads are taken out of
    them for the members that take part.
    """

    # What adds up the sums of such batches on their device; None where the host does.
    summing: ClassVar[Callable[..., Any] | None] = None
    capturing = False  # whether the step goes into a graph of the device
    kept_for_graphs: Any = None  # what such a graph works on, and needs at each replay
    looks: Any = None  # what runs the last stage so that it also sums what there is to see
    early: Any = None  # what runs the first stage where sums of gradients are taken before the step

    def __init__(
        self,
        kernel: Kernel,
        executable: Any,
        every: Sequence[Item],
        positions: Sequence[int],
        settings: Sequence[Settings],
    ) -> None:
        self.kernel, self.executable = kernel, executable
        self._members = [every[position] for position in positions]
        self._positions = np.array(positions)
        self._settings = settings
        self.device = self._members[0].param.device
        self.reach = self._members[0].reach
        self._number_nodes = [scalar(name) for name in kernel.program.of_groups]
        of_tensors = (r.label.over == TENSOR for stage in kernel.stages for r in stage.reductions)
        self._rows_apart = bool(kernel.program.own_numbers) or any(of_tensors)
        self._temporaries: dict[int, dict[str, Tensor]] = {}
        # What passes over elements do not work on: numbers of tensors, and what calls alone read and write.
        pairs = (slot.name for slot in kernel.slots if slot.space in PAIRS)
        self._not_staged = {*kernel.program.own_numbers, *pairs}
        self._draws = kernel.random
        self._groups = np.array([item.group for item in self._members])
        firsts = {item.form: item for item in reversed(self._members)}
        direct = {form: _direct(item, kernel.by_rows) for form, item in firsts.items()}
        self._directly = np.array([direct[item.form] for item in self._members])
        self._beside = [Beside.of(kernel, item, item.param.shape) if kernel.by_rows else None for item in self._members]
        self._whole = [
            beside if beside is None or item.part is None else Whole(kernel, item, beside)
            for item, beside in zip(self._members, self._beside, strict=True)
        ]
        if not kernel.in_one_go:
            for each in _each(self._beside, self._whole):
                each.lay(apart(self.device))
        self._sizes = np.array([item.form.kinds[0].elements for item in self._members])
        self._table = np.array([*map(self._line, self._members, self._beside)], np.int64)

    def _line(self, item: Item, beside: Beside | None) -> list[int]:
        seed = self._settings[item.group].seed
        key = random.tensor_key(seed, item.index, item.shard.number) if self._draws else 0
        others = map(Tensor.data_ptr, item.kept.values())
        kept = () if beside is None else beside.line()
        buffers = [0] * len(self.kernel.buffers)
        return [item.param.data_ptr(), 0, *others, *buffers, *kept, key, 0, item.shard.offset]

    # -- when the members that take part have changed ----------------------------------------------

    def select(self, present: npt.NDArray[np.bool_], steps: npt.NDArray[np.float64]) -> bool:
        """Have the members take part that are present, as a mask over the plan; whether there are any."""
        chosen = np.flatnonzero(present[self._positions])
        if not len(chosen):
            return False
        self.items = [self._members[member] for member in chosen]
        self.beside = [self._beside[member] for member in chosen]
        self.whole_of = [self._whole[member] for member in chosen]
        wholes = [whole for whole in self.whole_of if isinstance(whole, Whole)]
        self._shared = Wholes(self.kernel, cast("Sharing", self.reach), wholes) if wholes else None
        self.table = self._table[chosen]
        self.whole_table = self._table_of_wholes()
        self.sizes = sizes = self._sizes[chosen]
        self.elements = int(sizes.sum())
        self._staged = np.flatnonzero(~self._directly[chosen]).tolist()
        self._places = places = self._positions[chosen]
        self._count = int(present.sum())
        self._pick = _picker((np.cumsum(present) - 1)[places].tolist(), self._count)
        self._make_rows(self._groups[chosen], steps[places])
        self._make_chunks(sizes)
        self._copied: list[int] = []
        self._grads: Sequence[Tensor] = ()
        self._bound = False  # whether the table has the addresses of the last step's gradients
        self._cells = self._find_cells()
        self._numbers: dict[Node, Any] = {}
        self._evaluated = False
        self.stacks = self._make_stacks() if self.kernel.buffers else None
        self._laid_at: int | None = None
        self._shares_memory, self._shared_bytes = self.kernel.in_one_go or bool(self.kernel.buffers), self.room.shared
        self.passes = self._make_passes()
        self.looks = None
        self.shares = [[self._shares(reduction) for reduction in stage.reductions] for stage in self.kernel.stages]
        return True

    def _table_of_wholes(self) -> npt.NDArray[np.int64]:
        """The table of addresses for loops over rows and columns; the same one where all tensors are whole."""
        if self._shared is None:
            return self.table
        table = self.table.copy()
        for line, item, whole in zip(table, self.items, self.whole_of, strict=True):
            if isinstance(whole, Whole):
                line[-3], line[-1] = random.tensor_key(self._settings[item.group].seed, item.index), 0
                self._write_beside(line, item, whole)
        return table

    def _write_beside(self, line: npt.NDArray[np.int64], item: Item, beside: Beside | None) -> None:
        """Have a line of the table say where that is which is kept beside a tensor, or a whole one, and its states."""
        if isinstance(beside, Whole):
            line[2 : 2 + len(item.kept)] = [beside.states.get(s.name, t).data_ptr() for s, t in item.kept.items()]
        if beside is not None:
            line[len(self.kernel.tensors) : -3] = beside.line()

    def _find_cells(self) -> dict[str, list[Any]]:
        """What the host reads and writes of the numbers that each tensor has of its own, by name."""
        return {name: [*map(cell, tensors)] for name, tensors in self._own_numbers().items()}

    def _own_numbers(self) -> dict[str, list[Tensor]]:
        kept = [{slot.name: tensor for slot, tensor in item.kept.items()} for item in self.items]
        return {name: [tensors[name] for tensors in kept] for name in self.kernel.program.own_numbers}

    def _make_passes(self) -> list[Any]:
        return [self.make_pass(place) for place in range(len(self.kernel.stages))]

    def make_pass(self, place: int) -> Any:
        stage = self.kernel.stages[place]
        return None if stage.calls else Pass(self, stage)

    def _make_stacks(self) -> Stacks | Owned:
        laid = [
            Laid(tuple(item.param.shape), self._strides(position), item.matrices or ONE_MATRIX, row)
            for position, (item, row) in enumerate(zip(self.items, self.row_of.tolist(), strict=True))
        ]
        pairs = [{s.name: kept for s, kept in item.kept.items() if s.space in PAIRS} for item in self.items]
        sharing = sharing_of(self.items[0])
        if sharing is not None:
            return Owned(self.kernel, laid, self.items, pairs, sharing)
        return Stacks(self.kernel, laid, pairs)

    def _make_rows(self, groups: npt.NDArray[np.int64], steps: npt.NDArray[np.float64]) -> None:
        """Tensors with the same group and step count share a row, unless each has numbers of its own."""
        _, ranks = np.unique(steps, return_inverse=True)
        keys = np.arange(len(groups)) if self._rows_apart else groups * len(steps) + ranks
        _, first, rows = np.unique(keys, return_index=True, return_inverse=True)
        self.row_of, self.first_of_row = rows, first.tolist()
        self.row_groups = groups[first].tolist()
        self.row_steps = steps[first] + 1
        self._steps_alike = len({*self.row_steps.tolist()}) == 1  # which they stay

    def _make_chunks(self, sizes: npt.NDArray[np.int64]) -> None:
        by_rows = [beside.sides.chunks() for beside in self.beside if beside is not None]
        counts = np.array([*map(len, by_rows)]) if by_rows else -(-sizes // CHUNK)
        ends = np.cumsum(counts)
        owner = np.repeat(np.arange(len(sizes)), counts)
        if by_rows:
            start, length = np.concatenate(by_rows).T
            self._make_whole()
        else:
            start = (np.arange(len(owner)) - (ends - counts)[owner]) * CHUNK
            length = np.minimum(CHUNK, sizes[owner] - start)
        self.chunks = np.stack((owner, start, length, self.row_of[owner]), 1)
        self._chunk_ranges = list(map(slice, (ends - counts).tolist(), ends.tolist()))
        self._first_chunks = ends - counts
        self._in_one, self._in_several = np.flatnonzero(counts == 1), np.flatnonzero(counts != 1).tolist()

    def _make_whole(self) -> None:
        """A line for each tensor, for the loops over its rows and columns; of what is empty nothing is computed."""
        sides = [whole.sides for whole in self.whole_of if whole is not None]
        tensors = np.flatnonzero([side.elements for side in sides])
        self.narrow_elements = sum(side.length for side in sides)
        self.whole = np.stack((tensors, 0 * tensors, 0 * tensors + 1, self.row_of[tensors]), 1)

    # -- at each step ------------------------------------------------------------------------------

    def only_pass(self) -> int | None:
        """The address of its machine code, where that passes once over its tensors as they lie, and that is all."""
        kernel, apart = self.kernel, self._cells or self._copied or self._staged
        plain = len(kernel.stages) == 1 and not (kernel.by_rows or kernel.numbers or apart)
        address = getattr(self.executable, "address", None)
        return address(0) if plain and address is not None and self.elements else None

    def number(self, node: Node) -> Any:
        """The number of each row, or that of all."""
        return self._numbers[node]

    def places(self) -> list[int]:
        """Where its gradients are among those of the plan."""
        return [*self._pick(range(self._count))]

    @property
    def room(self) -> Room:
        """How many bytes it works in."""
        buffers = 0 if self.stacks is None else self.stacks.size
        beside = sum(each.size for each in _each(self.beside, self.whole_of))
        return Room(buffers + beside, 0) if self.kernel.in_one_go else Room(buffers, beside)

    def reserve(self) -> None:
        """Have the memory that it shares with batches that run before and after it."""
        if self._shares_memory:
            self._arena = arena_of(self.device)
            self._arena.reserve(self._shared_bytes)

    def lay(self, arena: Arena) -> None:
        """Have its buffers, and what is kept beside its tensors, where that memory is, perhaps not where it was."""
        memory = arena.memory.data_ptr()
        if self._laid_at == memory:
            return
        self._laid_at = memory
        tables = (*zip(self.table, self.whole_table, strict=True),)
        if self.stacks is not None:
            self.stacks.lay(arena)
            buffers = slice(len(self.kernel.given), len(self.kernel.tensors))
            for position, (line, of_whole) in enumerate(tables):
                line[buffers] = of_whole[buffers] = [*map(Tensor.data_ptr, self.stacks.of(position).values())]
        if self.kernel.in_one_go:
            take = within(arena, 0 if self.stacks is None else self.stacks.size)
            for each in _each(self.beside, self.whole_of):
                # Of what is empty no kernel writes sums, and others read them: they stay zero.
                each.lay(take if each.sides.elements else apart(self.device))
            for (line, of_whole), item, beside, whole in zip(
                tables, self.items, self.beside, self.whole_of, strict=True
            ):
                self._write_beside(line, item, beside)
                self._write_beside(of_whole, item, whole)

    def inspect(self, grads: Sequence[Tensor]) -> None:
        """Find the gradients that no kernel can read where they are: negated lazily, or laid out differently.

        Those that are copied together with their parameter are not among them.
        """
        pairs, staged = zip(self.items, self._pick(grads), strict=True), {*self._staged}
        self._copied = [
            place
            for place, (item, grad) in enumerate(pairs)
            if place not in staged and not item.form.kinds[0].is_read_in(grad)
        ]

    def bind(
        self,
        grads: Sequence[Tensor],
        addresses: Sequence[int],
        step_inputs: Mapping[Node, Any],
        *,
        moved: bool,
        reread: bool,
    ) -> None:
        """Take this step's gradients and numbers before anything is written.

        `moved`: the addresses are not those of the last step; `reread`: the groups' numbers may not be.
        """
        self._grads = self._pick(grads)
        if self._shares_memory:
            self.lay(self._arena)
        if moved or not self._bound:
            self.table[:, 1] = self._pick(addresses)
            self._bound = True
        for position in self._copied:
            copy = like_layout(self.items[position].param, self._grads[position])
            self._temporaries[position] = {"g": copy}
            self.table[position, 1] = copy.data_ptr()
        for position in self._staged:
            self._stage_in(position)
        if self._copied or self._staged:
            self._bound = False
        if self.stacks is not None:
            self.stacks.begin()
        if self.kernel.random:
            self.table[:, -2] = self.row_steps[self.row_of]
            self.whole_table[:, -2] = self.table[:, -2]
        if reread or not self._numbers:
            self.read_numbers()
        elif self.kernel.program.new_numbers:
            self._evaluated = False
        for name, cells in self._cells.items():
            self._numbers[scalar(name)] = column([each.item() for each in cells])
            self._evaluated = False
        self._numbers[STEP] = float(self.row_steps[0]) if self._steps_alike else self.row_steps.copy()
        if step_inputs:
            self._numbers |= step_inputs

    def _stage_in(self, position: int) -> None:
        """Copies of tensors that are not one dense range of memory, or not all laid out alike."""
        item = self.items[position]
        tensors = self._tensors_of(item, self._grads[position])
        blocks = self._blocks_of(item)
        copies = {
            n: t.detach().clone(memory_format=torch.contiguous_format)
            if blocks is None or t.shape != blocks.shape
            else like_layout(blocks, t)
            for n, t in tensors.items()
            if n not in self._not_staged
        }
        self._temporaries[position] = copies
        for place, name in enumerate(tensors):
            if name in copies:
                self.table[position, place] = copies[name].data_ptr()

    def copied_bytes(self) -> int:
        """How many bytes copies take in a step in which gradients are of the dtypes of their parameters.

        Those of such tensors, and of what is gathered of rows and columns.
        """
        gathered = 0 if self._shared is None else self._shared.gathered_bytes()
        staged = [self._tensors_of(self.items[position], self.items[position].param) for position in self._staged]
        copied = [t for tensors in staged for name, t in tensors.items() if name not in self._not_staged]
        return gathered + sum(tensor.numel() * tensor.element_size() for tensor in copied)

    def _blocks_of(self, item: Item) -> Tensor | None:
        """A state in blocks, if there is one: scales follow the order that blocks have in memory, and so do copies."""
        in_blocks = (s for slot, s in item.kept.items() if slot.block > 1 and is_dense(s))
        return None if self.kernel.by_rows else next(in_blocks, None)

    def _strides(self, position: int) -> tuple[int, ...]:
        """Those of what a kernel works on: a parameter, or a copy of it."""
        item = self.items[position]
        if position not in self._staged:
            return item.param.stride()
        blocks = self._blocks_of(item)
        like = torch.empty(item.param.shape, device="meta") if blocks is None else blocks
        return like.stride()

    def _tensors_of(self, item: Item, grad: Any) -> dict[str, Any]:
        return dict(zip(self.kernel.given, (item.param, grad, *item.kept.values()), strict=True))

    def read_numbers(self) -> None:
        """Take the numbers that groups have now."""
        read = {group: self._settings[group].read(self.kernel.program) for group in dict.fromkeys(self.row_groups)}
        columns = map(column, zip(*(read[group] for group in self.row_groups), strict=True))
        self._numbers = dict(zip(self._number_nodes, columns, strict=True))
        self._evaluated = False

    def forget_numbers(self) -> None:
        """Have each stage compute anew the numbers that it reads."""
        self._evaluated = False

    def run(self, level: int, sums: dict[Node, Any]) -> None:
        """Launch one stage, with what belongs before it; `sums` are the results of reductions, earlier and new ones."""
        for before in self.kernel.before(level):
            stage = self.kernel.stages[before]
            if stage.calls is not None:
                self._call(stage, sums)
                continue
            if stage.narrow and self._shared is not None:
                self._shared.collect(before)
            self._run(before, sums)
            if stage.narrow and self._shared is not None:
                self._shared.give_back(before)
            if stage.reductions:
                sums |= self._sums_of(before)
        self._run(level, sums)

    def placed_here(self, array: npt.NDArray[Any]) -> Tensor:
        """A table where the tables of the batch are."""
        return torch.from_numpy(np.ascontiguousarray(array))

    def left_to_see(self, last: Any) -> tuple[Tensor, Tensor]:
        """The sums of chunks that a last stage has left for whoever looks, and the scalars that it has read."""
        return torch.from_numpy(last.partials), torch.from_numpy(last.scalars)

    def _call(self, stage: Stage, sums: Mapping[Node, Any]) -> None:
        """Have torch work on whole matrices."""
        assert stage.calls is not None
        assert self.stacks is not None
        with np.errstate(all="ignore"):
            values = stage.host.evaluate({**self._known_for(stage), **sums})
        self.stacks.run(stage.calls, dict(zip(stage.scalars, values, strict=True)), self._left_out())

    def _known_for(self, stage: Stage) -> dict[Node, Any]:
        """The numbers that calls are made with: the host knows them all."""
        return self._numbers

    def _left_out(self) -> Tensor | None:
        """Whether the step is left out, as a device alone knows."""
        return None

    def _sums_of(self, place: int) -> dict[Node, Any]:
        """The sums of single tensors that a stage without a level has taken."""
        found: dict[Node, Any] = {}
        for number, reduction in enumerate(self.kernel.stages[place].reductions):
            own = self.own_sums(place, number)
            if self.reach is not None and self.reach.alike:
                shares = self.reach.gather(np.broadcast_to(own, len(self.row_groups)).tolist())
                own = column([kind_of(reduction).combine(values) for values in zip(*shares, strict=True)])
            found[reduction] = own
        return found

    def _run(self, level: int, sums: Mapping[Node, Any]) -> None:
        current = self.passes[level]
        if not (self._evaluated and current.steady):
            current.evaluate({**self._numbers, **sums} if sums else self._numbers)
        if self.elements or (self.kernel.stages[level].narrow and len(self.whole)):
            if self.early is None or level:
                self.executable.run(self, level)
            else:
                self.early.run(self, self._grads)

    def finish(self) -> None:
        """After the last stage: copies go back where they belong, updates are counted."""
        for position in self._staged:
            copies, whole = self._temporaries[position], self.whole_of[position]
            apart = {*self._not_staged, *(whole.states if isinstance(whole, Whole) else ())}
            for name, tensor in self._tensors_of(self.items[position], None).items():
                if tensor is not None and name not in apart:
                    tensor.detach().copy_(copies[name])
        self.row_steps += 1
        self._evaluated = self.looks is None or not self.looks.looked
        self.release()

    def release(self) -> None:
        """Let go of gradients and copies."""
        self._grads = ()
        self._temporaries.clear()
        if self.stacks is not None:
            self.stacks.begin()

    def guard_scopes(self) -> Collection[Hashable]:
        """The sums that are finite where all gradients are."""
        guard = self.kernel.guard
        return [] if guard is None else self.shares[0][self.kernel.stages[0].reductions.index(guard)].chunks

    def first_not_finite(self) -> int | None:
        """The place, among all of a plan's, of the first parameter whose guard is not finite."""
        if self.kernel.guard is None:
            return None
        sums = self.passes[0].partials[:, self.kernel.stages[0].reductions.index(self.kernel.guard)]
        wrong = np.flatnonzero(~np.isfinite(sums))
        return int(self._places[self.chunks[wrong[0], 0]]) if len(wrong) else None

    # -- what backends and reductions ask ----------------------------------------------------------

    @property
    def places_in_plan(self) -> npt.NDArray[np.int64]:
        """The places of its members that take part among all of a plan's."""
        return self._places

    def chunks_of(self, position: int) -> slice:
        """The lines of the chunk table, and so of `partials`, that belong to a tensor."""
        return self._chunk_ranges[position]

    def _shares(self, reduction: Node) -> Shares:
        chunks: dict[Hashable, list[int]] = {}
        for position, lines in enumerate(self._chunk_ranges):
            chunks.setdefault(self._scope_of(position, reduction), []).extend(range(lines.start, lines.stop))
        own = reduction.label.over == TENSOR and self.reach is None
        if len(chunks) == 1:
            return Shares(dict.fromkeys(chunks, slice(None)), [*chunks], own)
        rows = [self._scope_of(position, reduction) for position in self.first_of_row]
        return Shares({scope: np.array(lines, np.int64) for scope, lines in chunks.items()}, rows, own)

    def own_sums(self, level: int, column: int) -> Any:
        """The sums of a stage's reduction over each tensor, a value per row."""
        partials = self.passes[level].partials[:, column]
        if not self._in_several:
            return column_of(partials.copy())
        sums = np.zeros(len(self._first_chunks))
        sums[self._in_one] = partials[self._first_chunks[self._in_one]]
        combine = kind_of(self.kernel.stages[level].reductions[column]).combine
        for position in self._in_several:
            sums[position] = combine(partials[self.chunks_of(position)].tolist())
        return column_of(sums)

    def _scope_of(self, position: int, reduction: Node) -> Hashable:
        """The sum that a tensor's share of a reduction belongs to."""
        item = self.items[position]
        scope, owners = reduction.label.over, self._settings[item.group].scopes
        if scope == TENSOR:
            return (id(item.param), reduction)
        if scope == OPTIMIZER:
            return (id(owners[-1]), self.kernel.wide_sums[reduction])
        return scope if scope.level is None else id(owners[scope.level])

    # -- numbers that persist ----------------------------------------------------------------------

    def take_numbers(self, new: Mapping[int, Mapping[str, float]]) -> None:
        """Go on with the new numbers of groups, by the places of their settings."""
        for name in self.kernel.program.numbers_kept:
            node = scalar(name)
            if node in self._numbers and any(name in new.get(group, ()) for group in self.row_groups):
                before = np.broadcast_to(self._numbers[node], len(self.row_groups)).tolist()
                groups = zip(self.row_groups, before, strict=True)
                self._numbers[node] = column([new.get(group, {}).get(name, value) for group, value in groups])

    @property
    def keeps_numbers(self) -> bool:
        """Whether a device writes the new numbers that persist, and not the host."""
        return False

    def write_numbers(self, taken: set[Hashable]) -> None:
        """Have the device write the new numbers that persist, where it does; those of `taken` have been written."""

    def new_numbers(self, sums: Mapping[Node, Any]) -> Iterator[tuple[int, str, float]]:
        """The new numbers of the groups that take part, by the places of their settings; it writes those of tensors."""
        kernel = self.kernel
        with np.errstate(all="ignore"):
            values = kernel.new_numbers.evaluate({**self._numbers, **sums})
        firsts: dict[int, int] = {}
        if kernel.program.numbers_kept:
            firsts = {group: row for row, group in reversed([*enumerate(self.row_groups)])}
        for name, value in zip(kernel.numbers, values, strict=True):
            of_rows = value.tolist() if np.ndim(value) else [float(value)] * len(self.row_groups)
            if name in kernel.program.numbers_kept:
                yield from ((group, name, of_rows[row]) for group, row in firsts.items())
            else:
                for each, new in zip(self._cells.get(name, ()), of_rows, strict=False):
                    each[...] = new

    def direct_members(self) -> list[Item]:
        """All members, whether or not they take part, on whose own memory the kernel works."""
        return [*compress(self._members, self._directly)]

    def key_of(self, position: int) -> int:
        """The word that tells the random bits of a tensor apart."""
        return int(self.table[position, -3])

    def step_word(self, position: int) -> int:
        """The number of this update, counted from 1."""
        return int(self.table[position, -2]) & 0xFFFFFFFF

    def offset_of(self, position: int) -> int:
        """The index of a tensor's first element in the whole that it is a shard of."""
        return int(self.table[position, -1])

    def narrow_tensors(self) -> Iterator[dict[str, Tensor]]:
        """The same for loops over rows and columns: what is known of whole tensors."""
        for tensors, whole in zip(self.flat_tensors(), self.whole_of, strict=True):
            yield tensors | whole.states if isinstance(whole, Whole) else tensors

    def flat_tensors(self) -> Iterator[dict[str, Tensor]]:
        """Each tensor's memory, by name, as vectors in the order of addresses."""
        for position, (item, grad) in enumerate(zip(self.items, self._grads, strict=True)):
            tensors = self._tensors_of(item, grad) | self._temporaries.get(position, {})
            buffers = {} if self.stacks is None else self.stacks.of(position)
            yield {name: flat(tensor) for name, tensor in tensors.items()} | buffers


def column_of(values: npt.NDArray[np.float64]) -> Any:
    """A value per row, or one number where there is one row, which is computed with quicker."""
    return values if len(values) != 1 else float(values[0])


def column(values: Sequence[float]) -> Any:
    """A value per row, or one number where all are the same: that is computed once, and quicker."""
    return values[0] if values.count(values[0]) == len(values) else np.array(values, np.float64)


def cell(number: Tensor) -> Any:
    """One number on the host as it is read and written quickest; on other devices the tensor itself."""
    return number.detach().numpy() if number.device.type == "cpu" else number.detach()


def _picker(positions: Sequence[int], count: int) -> Callable[[Sequence[Any]], Any]:
    """What takes the members of a batch out of all of a plan's."""
    if len(positions) == count:  # in order, for a batch keeps the order of the plan
        return lambda values: values
    if len(positions) == 1:
        return lambda values: [values[positions[0]]]
    return itemgetter(*positions)


def _each(beside: Sequence[Beside | None], whole: Sequence[Beside | None]) -> Iterator[Beside]:
    """What is beside each tensor, and beside the whole of which it is a part."""
    for pair in zip(beside, whole, strict=True):
        yield from (each for each in dict.fromkeys(pair) if each is not None)


def _direct(item: Item, by_rows: bool) -> bool:
    """Whether the kernel can work on the parameter's and the states' own memory."""
    kept = [tensor for slot, tensor in item.kept.items() if slot.space not in PAIRS]
    if by_rows:
        return all(tensor.is_contiguous() for tensor in (item.param, *kept))
    return is_dense(item.param) and all(
        same_layout(tensor, item.param) for tensor in kept if tensor.shape == item.param.shape
    )
