"""What steps over tensors that have shapes alone would take: the batches of their plan, which are never run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from neon.engine.arena import Arena
from neon.engine.batch import Batch
from neon.engine.plan import launches
from neon.engine.settings import Item, Settings
from neon.engine.tensors.alike import Form, Kind


class Taken(NamedTuple):
    """Bytes that a plan takes beside parameters, gradients and states.

    `kept` are there between steps too. `buffers` are as well; all plans of a thread use them one after another, so the
    largest count. `passing` are there within a step alone.
    """

    kept: int = 0
    buffers: int = 0
    passing: int = 0


def taken(
    items: Sequence[Item], grad_dtypes: Sequence[torch.dtype], settings: Sequence[Settings], device: torch.device
) -> Taken:
    """What a plan of items takes whose tensors are on meta, and are meant for a device.

    Gradients count as laid out like their parameters, or contiguous where these are not dense, as autograd has them.
    """
    forms: dict[tuple[Kind, ...], Form] = {}
    for item in items:
        kinds = tuple(map(Kind.of, (item.param, *item.kept.values())))
        item.form = forms.setdefault(kinds, Form(kinds))
    kept = buffers = copies = calls = 0
    for kernel, positions in launches(items, grad_dtypes, settings, device):
        batch = Batch(kernel, None, items, positions, settings)
        batch.select(np.ones(len(items), bool), np.zeros(len(items)))
        arena = Arena(torch.device("meta"))
        arena.reserve(batch.room.shared)
        batch.lay(arena)
        kept += batch.room.own + _tables(batch)
        copies += batch.copied_bytes()
        buffers = max(buffers, batch.room.shared)
        calls = max(calls, 0 if batch.stacks is None else batch.stacks.beside(device))
    return Taken(kept, buffers, copies + calls)


def _tables(batch: Batch) -> int:
    """Bytes of the tables of addresses, chunks and numbers."""
    passes = [each for each in batch.passes if each is not None]
    tables = [batch.table, batch.chunks, *(table for each in passes for table in (each.partials, each.scalars))]
    return sum(table.nbytes for table in tables)
