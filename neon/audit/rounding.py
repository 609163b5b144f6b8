"""Updates that are smaller than half of the last place of a weight of 16 bits: measured on samples, or estimated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from neon.arguments import plain
from neon.audit.findings import Finding
from neon.audit.rates import highest_rate
from neon.audit.samples import can_be_sampled, sampled
from neon.audit.seen import LAST, Member, Record, Seen
from neon.engine.program.graph import CALL, REDUCTION, walk
from neon.engine.program.options import OF_SHAPES
from neon.engine.program.trace import signature

_NARROW = (torch.bfloat16, torch.float16)
# The share of elements from which on a parameter is named; fewer elements than these say nothing.
_MOST, _FEWEST = 0.5, 8


def lost_to_rounding(seen: Seen) -> Iterator[Finding]:
    """Parameters of 16 bits of which most elements have a gradient, and stay as they are."""
    estimated = _estimated(seen) if seen.asked else {}
    lost, held = estimated or (seen.record and seen.record.lost) or {}, seen.held
    shares = {held[param].name: share for param, share in lost.items() if share > _MOST and param in held}
    if shares:
        how = "estimated" if estimated else f"in step {LAST}"
        yield Finding(
            "rounding", tuple(shares), f"rounded to nearest, up to {max(shares.values()):.0%} of the elements with a "
            f"gradient stay as they are ({how}): their updates are below half of the last place.",
            "Use stochastic_round=True, master='split', or weights of float32.",
        )  # fmt: skip


class Before:
    """The weights of 16 bits before a step, where rounding may lose what it does to them.

    A rate that is on its way up says nothing yet.
    """

    def __init__(self, seen: Seen) -> None:
        members = [] if seen.rules.in_backward or seen.rules.capturable else [*_narrow(seen)]
        self._params = [member.param for member in members]
        self._weights = [sampled(param) for param in self._params]
        self._weights = [weight.clone() for weight in self._weights]

    def compare(self, record: Record) -> None:
        """Note the share of each parameter's elements that have a gradient and stayed where they were."""
        found: dict[int, float] = {}
        for param, before in zip(self._params, self._weights, strict=True):
            if param.grad is not None and can_be_sampled(param.grad) and can_be_sampled(param):
                share = _share(before, sampled(param), sampled(param.grad))
                if share is not None:
                    found[id(param)] = share
        record.lost = found


def _share(before: Tensor, after: Tensor, grad: Tensor) -> float | None:
    """The share of elements with a gradient that are as before."""
    moves = grad != 0
    counts = torch.stack([moves.sum(), (moves & (after == before)).sum()]).tolist()
    return counts[1] / counts[0] if counts[0] >= _FEWEST else None


def _narrow(seen: Seen) -> Iterator[Member]:
    """The parameters that rounding to nearest may hold where they are."""
    for place in range(len(seen.groups)):
        members = [m for m in seen.members_of(place) if m.param.dtype in _NARROW and not m.is_frozen]
        rate, highest = seen.rate(place), highest_rate(seen, place)
        if not (members and rate and highest) or rate < highest / 2:
            continue
        for member in members:
            if _to_nearest(member.values) and seen.rate(place, member.values) and can_be_sampled(member.param):
                yield member


def _to_nearest(values: Mapping[str, Any]) -> bool:
    """Whether nothing but rounding to nearest keeps a weight where it is."""
    keeps = values.get("master"), values.get("param_clip_value")
    return values.get("stochastic_round", False) is False and keeps == (None, None)


def _estimated(seen: Seen) -> dict[int, float]:
    """The same of the next step, by the rule itself on samples, where it works on elements and gradients are there."""
    found = {}
    for member in _narrow(seen):
        if (moved := _moved(seen, member)) is not None:
            weight, updated, grad = moved
            if (share := _share(weight, updated, grad)) is not None:
                found[id(member.param)] = share
    return found


def _moved(seen: Seen, member: Member) -> tuple[Tensor, Tensor, Tensor] | None:
    """A sample of a weight, of what the next step makes of it, rounded to nearest, and of the gradient."""
    leaf, param = seen.rules.leaf_of(seen.groups[member.place]), member.param
    values: dict[str, Any] = dict(member.values) | {"gradient_clip_norm": None, "gradient_clip_previous_norm": None}
    program = leaf.settings(values).program
    by_elements = not any(node.op in (CALL, REDUCTION) for node in walk(program.outputs.values()))
    if param.grad is None or not can_be_sampled(param.grad) or not by_elements or program.numbers_kept:
        return None
    form = signature(rule := leaf.rule_of(values))
    kept: Mapping[str, Any] = seen.optimizer.state.get(param) or {}
    weight, grad = sampled(param), sampled(param.grad)
    states = [_state(kept, name, state.start, param, weight) for name, state in form.states.items()]
    if any(state is None for state in states):
        return None
    of_step = dict.fromkeys(OF_SHAPES, param.dim() > 1) | {"step": float(kept.get("step", 0.0)) + 1}
    given = values | of_step | {"lr": seen.rate(member.place, values)}
    numbers = {name: plain(given.get(name, default)) for name, default in form.keywords.items()}
    result = rule(weight.double(), grad.double(), *states, **numbers)
    updated = result[0] if isinstance(result, (tuple, list)) else result
    return weight, updated.to(weight.dtype), grad


def _state(kept: Mapping[str, Any], name: str, start: Any, param: Tensor, weight: Tensor) -> Tensor | None:
    """A sample of a state, or where it starts."""
    state = kept.get(name)
    if state is None and isinstance(start, (int, float)):
        return torch.full_like(weight, start, dtype=torch.float64)
    is_elements = isinstance(state, Tensor) and state.shape == param.shape and state.is_floating_point()
    return sampled(state).double() if is_elements else None  # type: ignore[arg-type]
