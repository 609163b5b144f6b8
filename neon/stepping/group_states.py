"""The states of a parameter: found or made for the engine, and put where torch keeps them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from neon.engine.counts import mark_movable
from neon.engine.program.slots import at, auxiliary_paths
from neon.engine.refusals.tensors import check_parameter
from neon.engine.settings import Item, Reach, Settings
from neon.engine.tensors.kept import kept_tensors
from neon.stepping.sharding import is_abstract, keeps_blocks, local, shard_of, sharded_like
from neon.stepping.watched import Watched


def make_item(
    name: str,
    param: Any,
    row: int,
    order: int,
    settings: Settings,
    states: Mapping[Any, Any],
    reach: Reach | None,
    count: float | None = None,
) -> Item:
    """A parameter with the states that it has, and new ones where it has none, as the engine takes it.

    `count` is the exact number of its updates, where one is known.
    """
    kept, part = states.get(param, {}), local(param)
    if not is_abstract(param):
        check_parameter(name, part)
    settings.storage.check_weight(name, part)
    size, blocks = param.numel(), keeps_blocks(param)
    own = kept_tensors(settings.storage, settings.program, part, _local_parts(kept), size=size, blocks=blocks)
    step = kept["step"] if "step" in kept else mark_movable(torch.zeros((), dtype=torch.float32, device="cpu"))
    return Item(name, part, own, step, row, order, reach, shard_of(param), count)


def still_has(state: Any, slots: Mapping[str, Any]) -> bool:
    """Whether a state has the tensors of a plan in their places, and says so when they are taken away."""
    return isinstance(state, Watched) and all(
        still_has(state.get(name), planned) if isinstance(planned, dict) else state.get(name) is planned
        for name, planned in slots.items()
    )


def _local_parts(kept: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _local_parts(value) if isinstance(value, Mapping) else local(value) for key, value in kept.items()}


def put_states(
    states: Any, param: Any, item: Item, step: Tensor, settings: Settings, changes: set[int]
) -> dict[str, Any]:
    """Put the tensors of an item where torch keeps them; returns them as they lie there.

    What belonged to another format is let go.
    """
    state = Watched.of(states.get(param, {}), changes)
    placed: dict[str, Any] = {"step": step}
    for path in auxiliary_paths(settings.program) - {slot.path for slot in item.kept}:
        if isinstance(folder := at(state, path[:-1]), dict):
            dict.pop(folder, path[-1], None)
    for slot, part in item.kept.items():
        own = at(state, slot.path)
        _put(placed, slot.path, sharded_like(param, part, slot.space) if own is None else own)
    _write(state, placed, changes)
    states.write_quietly(param, state)
    return placed


def _put(folder: dict[str, Any], path: Sequence[str], tensor: Tensor) -> None:
    for name in path[:-1]:
        folder = folder.setdefault(name, {})
    folder[path[-1]] = tensor


def _write(state: Watched, placed: Mapping[str, Any], changes: set[int]) -> None:
    for name, value in placed.items():
        if isinstance(value, dict):
            folder = Watched.of(state.get(name, {}), changes)
            _write(folder, value, changes)
            state.write_quietly(name, folder)
        else:
            state.write_quietly(name, value)
