"""The states of a parameter: found or made for the engine, and put where torch keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from neon.engine.counts import mark_movable
from neon.engine.program.formats.blocks import BLOCK_CODECS
from neon.engine.settings import Item, Reach, Settings
from neon.engine.tensors.checks import check_parameter
from neon.engine.tensors.slots import complete
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
    own, companions = complete(settings.storage, settings.program, part, _local_parts(kept), size=size, blocks=blocks)
    step = kept["step"] if "step" in kept else mark_movable(torch.zeros((), dtype=torch.float32, device="cpu"))
    return Item(name, part, [*own.values()], step, row, order, reach, shard_of(param), companions, count)


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
    """Put the states of an item where torch keeps them; returns them by name.

    What has not the parameter's shape, the scales of 8-bit states, goes into a dict. Scales and low bits that
    belonged to another format are let go.
    """
    state = Watched.of(states.get(param, {}), changes)
    scales = Watched.of(state.get("scales", {}), changes)
    slots: dict[str, Any] = {"step": step}
    beside = [*item.companions]
    for name, part in zip(settings.program.states, item.states, strict=True):
        slots[name] = state[name] if name in state else sharded_like(param, part)
        if part.dtype in BLOCK_CODECS:
            blocks = beside.pop(0)
            slots.setdefault("scales", {})[name] = scales[name] if name in scales else sharded_like(param, blocks)
        else:
            dict.pop(scales, name, None)
    if beside:
        slots["low_bits"] = state["low_bits"] if "low_bits" in state else sharded_like(param, beside.pop(0))
    else:
        dict.pop(state, "low_bits", None)
    for name, tensor in slots.items():
        if name != "scales":
            state.write_quietly(name, tensor)
    for name, tensor in slots.get("scales", {}).items():
        scales.write_quietly(name, tensor)
        state.write_quietly("scales", scales)
    states.write_quietly(param, state)
    return slots
