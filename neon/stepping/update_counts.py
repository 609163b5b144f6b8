"""How many updates a parameter of a layer list has had: kept beside its memory, for whichever optimizer comes next."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from neon.assignment.param_list import Entry, is_plain, memory


def update_count(holder: Tensor) -> Tensor:
    """The number of updates that a tensor has had, kept on it as an attribute: it goes where the tensor goes.

    It is kept with the tensor's memory too, for layers whose `get_params()` makes a view at each call.
    """
    kept = _counts_of_memory(holder).get(memory(holder)) if is_plain(holder) else None
    return getattr(holder, "_neon_step", torch.tensor(0.0, dtype=torch.float64, device="cpu")) if kept is None else kept


def is_counted(holder: Tensor) -> bool:
    """Whether a step has counted updates on a tensor."""
    return update_count(holder) is update_count(holder)  # what stands for none is made anew


class Moves:
    """How often a count has been put in another tensor's place: whoever counts looks whether it was theirs."""

    made = 0


def keep_update_count(holder: Tensor, count: Tensor) -> None:
    """Keep what `update_count` gives from now on."""
    Moves.made += 1
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
