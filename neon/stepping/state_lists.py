"""The list of states of a parameter in a layer list: which of its tensors are states, and what is refused."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from neon.assignment.declared_parts import matrices_of
from neon.assignment.description import Description
from neon.assignment.sites import Site
from neon.engine.program.trace import Program, signature
from neon.engine.settings import Item, Settings
from neon.engine.tensors.kept import Keeper, Kept
from neon.engine.tensors.weight_matrices import Matrices
from neon.messages import listed, shortened
from neon.stepping.in_place import Viewed
from neon.stepping.update_counts import is_counted, update_count

_MARK = "_neon_scratch"  # on a tensor that a step has found to be scratch


def kept_in_list(
    states: list[Tensor], site: Site, leaf: Description, program: Program, settings: Settings, matrices: Matrices
) -> Kept:
    """The tensors of a parameter that a list holds, in the order of their slots; new ones for an empty list.

    Behind its states the list may hold as many tensors as the optimizer's class calls `scratch`, which are left alone.

    Raises `ValueError` for a list of another length, and for scratch that would be taken for an average of weights or
    for the low bits of one.
    """
    assert site.param is not None
    storage = settings.storage
    if not states:
        return Keeper(storage, program, site.param, settings.values, matrices=matrices).tensors(site.param, {})
    own = states[: len(program.states)]
    slots = storage.slots(program, site.param, own) if len(own) == len(program.states) else ()
    count = len(slots) or len(program.states) + storage.splits(site.param)
    scratch = _scratch(states, leaf)
    if scratch and len(states) > count:
        for tensor in scratch:
            if isinstance(tensor, Tensor):
                setattr(tensor, _MARK, True)
        return dict(zip(slots, own, strict=True))
    if len(states) != count:
        names = [*program.states, *([f"and {more} beside them"] if (more := count - len(program.states)) else [])]
        raise ValueError(
            f"The list of states of {shortened(site.label)} holds {len(states)} tensors; {shortened(program.name)} "
            f"keeps {count} ({listed(names)}). Give an empty list to start anew."
        )
    if scratch and (not is_counted(own[0]) or any(hasattr(tensor, _MARK) for tensor in scratch)):
        raise ValueError(
            f"The list of states of {shortened(site.label)} holds {len(states)} tensors, of which the last may be "
            f"scratch; with weight_average or master {shortened(program.name)} would take it for more. Give an empty "
            "list to start anew, or leave these options out."
        )
    return dict(zip(slots, states, strict=True))


def _scratch(states: list[Tensor], leaf: Description) -> list[Tensor]:
    """What would be scratch in a list without averages of weights and in formats that need nothing beside states."""
    rule = leaf._widest_rule
    count = len(signature(rule).tensors) if rule is not None else 0
    more = leaf.scratch
    return states[count:] if more and len(states) == count + more else []


def viewed_in_list(site: Site, leaf: Description) -> Viewed | None:
    """A parameter of a layer list with what it is at evaluation, where that is something else and has its states."""
    settings = leaf.settings(leaf.group())
    if settings.view is None or site.entry is None or not site.entry[1]:
        return None
    (param, _), states = site.entry
    program = settings.program_of(param, matrices_of(leaf, site, param))
    own = states[: len(program.states)]
    if len(own) < len(program.states):
        return None
    by_path: dict[str, Any] = {}
    for slot, tensor in zip(settings.storage.slots(program, param, own), states, strict=False):
        *folders, last = slot.path
        folder = by_path
        for name in folders:
            folder = folder.setdefault(name, {})
        folder[last] = tensor
    kept = Keeper(settings.storage, settings.view, param, settings.values).tensors(param, by_path)
    count = float(update_count(states[0])) - 1
    item = Item(site.label, param, kept, torch.tensor(count, dtype=torch.float32, device="cpu"), 0, 0, count=count)
    return Viewed(item, settings, states)
