"""Updates that are smaller than half of the last place of a weight of 16 bits: measured on samples, or estimated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from neon.arguments import plain
from neon.audit.findings import Finding
from neon.audit.rates import highest_rate, rises
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
    found = [(held[param], share) for param, share in lost.items() if share > _MOST and param in held]
    shares = {member.name: share for member, share in found}
    if shares:
        split = "master='split', " * all(member.param.dtype == torch.bfloat16 for member, _ in found)
        how = "estimated" if estimated else f"in step {LAST}"
        yield Finding(
            "rounding", tuple(shares), f"rounded to nearest, up to {max(shares.values()):.0%} of the elements with a "
            f"gradient stay as they are ({how}): their updates are below half of the last place.",
            f"Use stochastic_round=True, {split}or weights of float32.",
        )  # fmt: skip


class Before:
    """The weights of 16 bits before a step, where rounding may lose what it does to them.

    A rate that is on its way up says nothing yet. What a rule leaves where it is by itself, as a cautious step does
    with what would go up the gradient, is not lost: so its own result is kept beside.
    """

    def __init__(self, seen: Seen) -> None:
        members = [] if seen.rules.in_backward or seen.rules.capturable else [*_narrow(seen)]
        self._params = [member.param for member in members]
        self._weights = [sampled(param) for param in self._params]
        self._weights = [weight.clone() for weight in self._weights]
        selective = _selective(seen, {member.place for member in members})
        self._rules = [_on_samples(seen, member) if member.place in selective else _all_moves for member in members]

    def compare(self, record: Record) -> None:
        """Note the share of each parameter's elements that have a gradient and stayed where they were."""
        found: dict[int, float] = {}
        for param, before, rule in zip(self._params, self._weights, self._rules, strict=True):
            if param.grad is None or rule is None or not (can_be_sampled(param.grad) and can_be_sampled(param)):
                continue
            grad, after = sampled(param.grad), sampled(param)
            if before.shape == after.shape == grad.shape:  # of a gradient that lies otherwise other elements are here
                share = _share(before, after, (grad != 0) & (rule(grad) != before))
                if share is not None:
                    found[id(param)] = share
        record.lost = found


def _share(before: Tensor, after: Tensor, moves: Tensor) -> float | None:
    """The share of elements that are to move, and are as before."""
    counts = torch.stack([moves.sum(), (moves & (after == before)).sum()]).tolist()
    return counts[1] / counts[0] if counts[0] >= _FEWEST else None


def _all_moves(_grad: Tensor) -> float:
    """In the place of what a rule makes of weights, where it moves all that have a gradient."""
    return math.nan


def _narrow(seen: Seen) -> Iterator[Member]:
    """The parameters that rounding to nearest may hold where they are."""
    for place in range(len(seen.groups)):
        members = [m for m in seen.members_of(place) if m.param.dtype in _NARROW and not m.is_frozen]
        rate, highest = seen.rate(place), highest_rate(seen, place)
        if not (members and rate and highest) or rate < highest / 2 or rises(seen, place):
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
        grad = member.param.grad
        if grad is None or not can_be_sampled(grad) or (rule := _on_samples(seen, member, REDUCTION)) is None:
            continue
        weight, grad = sampled(member.param), sampled(grad)
        exact = rule(grad)
        share = _share(weight, exact.to(weight.dtype), (grad != 0) & (exact != weight))
        if share is not None:
            found[id(member.param)] = share
    return found


def _selective(seen: Seen, places: set[int]) -> set[int]:
    """The groups whose rule decides of each element whether it moves; each rule is looked at once."""
    found, known = set[int](), dict[Any, bool]()
    for place in places:
        group = seen.groups[place]
        leaf = seen.rules.leaf_of(group)
        if (rule := leaf.rule_of(group)) not in known:
            nodes = walk(leaf.settings(_values(group)).program.outputs.values())
            known[rule] = any(node.op == "where" and node.args[0].varies for node in nodes)
        if known[rule]:
            found.add(place)
    return found


def _values(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a step goes by, but for norms and decay, which moves all elements, and hardly."""
    return dict(given) | {"gradient_clip_norm": None, "gradient_clip_previous_norm": None, "weight_decay": 0.0}


def _on_samples(seen: Seen, member: Member, *unlike: str) -> Callable[[Tensor], Tensor] | None:
    """What the next step makes of samples of a weight and its states, as they are now, by those of a gradient.

    None where a rule takes matrices whole, keeps more than elements, or has operations that are `unlike` on samples.
    """
    leaf, param, values = seen.rules.leaf_of(seen.groups[member.place]), member.param, _values(member.values)
    program = leaf.settings(values).program
    if program.numbers_kept or any(node.op in (CALL, *unlike) for node in walk(program.outputs.values())):
        return None
    form = signature(rule := leaf.rule_of(values))
    kept: Mapping[str, Any] = seen.optimizer.state.get(param) or {}
    weight = sampled(param).double()
    states = [_state(kept, name, state.start, param, weight) for name, state in form.states.items()]
    if any(state is None for state in states):
        return None
    of_step = dict.fromkeys(OF_SHAPES, param.dim() > 1) | {"step": float(kept.get("step", 0.0)) + 1}
    given = values | of_step | {"lr": seen.rate(member.place, values)}
    numbers = {name: plain(given.get(name, default)) for name, default in form.keywords.items()}

    def updated(grad: Tensor) -> Tensor:
        result = rule(weight, grad.double(), *states, **numbers)
        return result[0] if isinstance(result, (tuple, list)) else result

    return updated


def _state(kept: Mapping[str, Any], name: str, start: Any, param: Tensor, weight: Tensor) -> Tensor | None:
    """A sample of a state, or where it starts."""
    state = kept.get(name)
    if state is None and isinstance(start, (int, float)):
        return torch.full_like(weight, start, dtype=torch.float64)
    is_elements = isinstance(state, Tensor) and state.shape == param.shape and state.is_floating_point()
    return sampled(state).to(torch.float64, copy=True) if is_elements else None  # type: ignore[arg-type]
