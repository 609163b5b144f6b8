"""States that are float32 though 8 bits were asked for: a placement, or a rule of rows, would cut their blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch

from neon.audit.findings import Finding
from neon.audit.seen import Member, Seen
from neon.engine.program.formats.blocks import BLOCK
from neon.engine.settings import Settings
from neon.stepping.sharding import keeps_blocks, local

# The share of the elements from which on something is said: sharded vectors, which are cut anywhere, are less.
_LEAST = 0.1
_RULE = f"the rule works by rows, which would cut blocks of {BLOCK} numbers"
_SHARDS = f"shards would cut blocks of {BLOCK} numbers"


def cut_blocks(seen: Seen) -> Iterator[Finding]:
    """Parameters of whose states some take four bytes in the place of one."""
    asked = [*_asked_for(seen)]
    if not any(by_rows or not keeps_blocks(member.param) for member, _, by_rows in asked):
        return
    every, found = 0, defaultdict[str, list[Member]](list)
    for member, settings, _ in asked:
        why = _why(seen, member, settings)
        every += 0 if why is None else member.param.numel()
        found[why or ""].append(member)
    for why in (_SHARDS, _RULE):
        if found[why] and sum(member.param.numel() for member in found[why]) >= _LEAST * every:
            yield Finding(
                "wide states", tuple(member.name for member in found[why]), "states that were asked for in 8 bits are "
                f"float32: {why}.", "Use state_dtype='bfloat16', which nothing cuts.",
            )  # fmt: skip


def _asked_for(seen: Seen) -> Iterator[tuple[Member, Settings, bool]]:
    """The parameters of which states are to be in blocks, what they go by, and whether that works by rows."""
    known: dict[Any, tuple[Settings, bool] | None] = {}
    for member in seen.members:
        states = member.values.get("state_dtype")
        if not states or not seen.has_stepped(member) or member.is_frozen:
            continue
        if (key := (member.place, str(states))) not in known:
            settings = seen.rules.leaf_of(seen.groups[member.place]).settings(dict(member.values))
            by_rows = any(program.by_rows for program in settings.programs)
            known[key] = (settings, by_rows) if settings.storage.in_blocks else None
        if (asked := known[key]) is not None:
            yield member, *asked


def _why(seen: Seen, member: Member, settings: Settings) -> str | None:
    """Why states are float32, empty where they are not; None where 8 bits were not asked for."""
    group, param = seen.groups[member.place], member.param
    program = settings.program_of(param, seen.rules.matrices(group, member.name, param))
    forms = {name: settings.storage.form_of(name, program, local(param), param.numel()) for name in program.states}
    in_blocks = [name for name, form in forms.items() if form.block > 1]
    if not in_blocks:
        return None
    state = seen.optimizer.state[param]
    if all(name not in state or state[name].dtype != torch.float32 for name in in_blocks):
        return ""
    return _RULE if program.by_rows else "" if keeps_blocks(param) else _SHARDS
