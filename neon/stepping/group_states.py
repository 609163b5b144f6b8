"""The states of a parameter: found or made for the engine, and put where torch keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neon.engine.counts import NONE_YET, mark_movable
from neon.engine.program.slots import at, auxiliary_paths
from neon.engine.program.spaces import PAIRS
from neon.engine.refusals.formats import check_weight
from neon.engine.refusals.tensors import check_parameter, check_sides
from neon.engine.settings import WHOLE, Item, Part, Reach, Settings, what_is_here
from neon.engine.tensors.kept import Keeper
from neon.engine.tensors.weight_matrices import ONE_MATRIX, Matrices
from neon.messages import listed, quoted, shortened
from neon.stepping.sharding import (
    Replicas,
    is_abstract,
    is_sharded,
    is_shared,
    keeps_blocks,
    local,
    part_of,
    shard_of,
    sharded_like,
)
from neon.stepping.watched import Watched

# Tensors by their places in the state of a parameter.
Placed = dict[tuple[str, ...], Tensor]


class _Fit(NamedTuple):
    """What there is to know of parameters that are alike, once nothing about them is refused."""

    keeper: Keeper
    at_values: Sequence[str]  # the states that start at a value of the group
    whole: Part | None
    matrices: Matrices | None
    sharers: Replicas | None


class Items:
    """Parameters with the states that they have, and new ones where they have none, as the engine takes them.

    What goes by the kind of a parameter is looked at once. `sharers` share out matrices that all of them have.
    """

    def __init__(self, states: Mapping[Any, Any], sharers: Replicas | None = None) -> None:
        self._states, self._sharers = states, sharers
        self._fits: dict[Any, _Fit] = {}

    def make(
        self,
        name: str,
        param: Any,
        row: int,
        order: int,
        settings: Settings,
        reach: Reach | None,
        count: float | None = None,
        matrices: Matrices = ONE_MATRIX,
    ) -> Item:
        """The item of a parameter. `count` is the exact number of its updates, where one is known."""
        kept, part = self._states.get(param, {}), local(param)
        alike: Any = None
        if not is_abstract(param):
            kind = check_parameter(name, part)
            alike = (settings, reach, None if matrices is ONE_MATRIX else matrices, kind) if part is param else None
        fit = self._fits.get(alike)
        if fit is None:
            fit = self._fit(name, param, settings, reach, matrices)
            if alike is not None:
                self._fits[alike] = fit
        own = fit.keeper.tensors(part, _begun(_local_parts(kept), fit.at_values) if kept else kept)
        step, shard = kept.get("step", NONE_YET), WHOLE if part is param else shard_of(param)
        return Item(name, part, own, step, row, order, reach, shard, count, fit.whole, fit.matrices, fit.sharers)

    def _fit(self, name: str, param: Any, settings: Settings, reach: Reach | None, matrices: Matrices) -> _Fit:
        part = local(param)
        check_weight(settings, name, part)
        program = settings.program_of(param, matrices)
        check_sides(name, part, program)
        needed = program.by_rows or program.calls
        whole = part_of(param) if (needed or settings.others) and reach is not None else None
        if whole is None and needed and is_shared(param):
            known = "rows and columns are" if program.by_rows else "the whole matrix is"
            raise ValueError(
                f"Parameter {quoted(name)} has placements {param.placements}; {known} known of parameters "
                "that are cut by Shard alone. Redistribute it."
            )
        keeps_rows = matrices.keep_order and (whole is None or matrices == ONE_MATRIX)
        if program.by_rows and program.calls and not keeps_rows:
            raise ValueError(
                f"{shortened(program.name)} has values for the rows of matrices, and parameter {quoted(name)} is made "
                f"of {matrices}: parts must be of one length, of the first dimension, and on one process. Give it Muon."
            )
        of_pairs = [state for state, declared in program.states.items() if declared.of in PAIRS]
        if of_pairs and param.numel() and len(matrices.shapes(param.shape)) > 1:
            raise ValueError(
                f"{shortened(program.name)} keeps {listed(of_pairs)} of each matrix in one tensor, and parameter "
                f"{quoted(name)} is made of {matrices}: parts must be of one length. Make them parameters of their own."
            )
        by_rows = program.by_rows and program.sees_matrices
        if whole is not None and by_rows and len(whole.shape) > 2 and not whole.keeps_rows:
            raise ValueError(
                f"Parameter {quoted(name)} has placements {param.placements}; flattened to a matrix, as "
                f"{shortened(program.name)} sees it, it can be cut along its first dimension alone. Redistribute it."
            )
        seen = matrices if program.calls else None
        keeper = Keeper(
            settings.storage, program, part, settings.values, size=param.numel(), blocks=keeps_blocks(param),
            here=lambda space: what_is_here(space, part, whole, reach, seen),
        )  # fmt: skip
        sharers = self._sharers
        if not program.calls or reach is not None or (sharers is not None and not sharers.shares(param)):
            sharers = None
        at_values = [name for name, state in program.states.items() if state.starts_at_value]
        return _Fit(keeper, at_values, whole, seen, sharers)


def count_of(item: Item) -> Tensor:
    """The count of an item that no plan counts, which belongs to it alone."""
    if item.step is not NONE_YET:
        return item.step
    return mark_movable(torch.zeros((), dtype=torch.float32, device="cpu"))


def still_has(state: Any, placed: Placed) -> bool:
    """Whether a state has the tensors of a plan in their places, and says so when they are taken away."""
    return all(_watched_at(state, path) is tensor for path, tensor in placed.items())


def _watched_at(state: Any, path: Sequence[str]) -> Any:
    for name in path:
        state = state.get(name) if isinstance(state, Watched) else None
    return state


def _local_parts(kept: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: local(value) if isinstance(value, Tensor) or not isinstance(value, Mapping) else _local_parts(value)
        for key, value in kept.items()
    }


def _begun(parts: dict[str, Any], at_values: Sequence[str]) -> dict[str, Any]:
    """What is kept of a parameter, but for states that start `at_values` of its group as long as there was no update.

    torch.distributed.checkpoint has states made while all rates are 0.
    """
    names = [name for name in at_values if name in parts]
    if not names or float(parts.get("step", 1.0)) != 0:
        return parts
    scales = {name: scale for name, scale in parts.get("scales", {}).items() if name not in names}
    return {name: part for name, part in parts.items() if name not in (*names, "scales")} | {"scales": scales}


def put_states(states: Any, param: Any, item: Item, step: Tensor, settings: Settings, changes: set[int]) -> Placed:
    """Put the tensors of an item where torch keeps them; returns them by their places.

    What belonged to another format is let go.
    """
    state = Watched.of(states.get(param, {}), changes)
    paths = auxiliary_paths(settings.program_of(param, item.matrices)) if state else ()
    stale = {path for path in paths if path[0] in state}
    for path in stale - {slot.path for slot in item.kept} if stale else ():
        if isinstance(folder := at(state, path[:-1]), dict):
            dict.pop(folder, path[-1], None)
    placed: Placed = {("step",): step}
    for slot, part in item.kept.items():
        own: Any = at(state, slot.path) if state else None
        if own is None or not (own is part or (is_sharded(own) and local(own).data_ptr() == part.data_ptr())):
            own = part if param is item.param else sharded_like(param, part, slot.space, item.matrices)
        placed[slot.path] = own
    for (*folders, name), tensor in placed.items():
        folder = state
        for outer in folders:
            inner = Watched.of(folder.get(outer, {}), changes)
            folder.write_quietly(outer, inner)
            folder = inner
        folder.write_quietly(name, tensor)
    states.write_quietly(param, state)
    return placed
