"""Clips that always act, or never: by how much gradients exceed their bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from neon.audit.findings import Finding
from neon.audit.samples import can_be_sampled, sampled
from neon.audit.seen import Member, Record, Seen

# Gradients ten thousand times as large as their bound come of a sum in the place of a mean, as of 32 sequences of 1,024
# tokens, or of a scale of 65,536 that was not taken off. Ten times is common at the start of large models, a hundred in
# recipes that clip on purpose.
_ALWAYS, _OFTEN, _NEVER = 10_000.0, 10.0, 1 / 1000
# The share of elements from which on a gradient has become its sign.
_SIGN = 0.999


def clips_by_norm(seen: Seen) -> bool:
    """Whether there are bounds of norms."""
    words = ("outer_clip_norms", "gradient_clip_norm", "gradient_clip_previous_norm")
    return any(group.get(word) for group in seen.groups for word in words)


def look_at_norms(seen: Seen, record: Record) -> None:
    """Note what the norms of the last step were of their bounds."""
    for name, ratio in _ratios(seen):
        if ratio > 0 and math.isfinite(ratio):
            least, most = record.norms.get(name, (ratio, ratio))
            record.norms[name] = min(least, ratio), max(most, ratio)


def look_at_values(seen: Seen, record: Record) -> None:
    """Note which share of the elements was clipped by value, and how large the largest was."""
    if seen.rules.capturable or "grad_scale" in vars(seen.optimizer):  # under a scaler it is not these that are clipped
        return
    for place in range(len(seen.groups)):
        found = [size for member in seen.members_of(place) if (size := _sizes(seen, member)) is not None]
        if found and len(sizes := torch.cat(found)):
            share = (sizes > 1).float().mean().item()
            record.clipped[place] = min(record.clipped.get(place, 1.0), share)
            record.largest[place] = max(record.largest.get(place, 0.0), sizes.max().item())


def _sizes(seen: Seen, member: Member) -> Tensor | None:
    """How large elements of a gradient are, of the bound that they are clipped by, but for zeros."""
    bound, grad = member.values.get("gradient_clip_value"), member.param.grad
    if bound is None or grad is None or member.is_frozen or not seen.can_read(bound) or not can_be_sampled(grad):
        return None
    sizes = sampled(grad).float().cpu().abs() / abs(float(bound))
    return sizes[sizes > 0]


def clips_always(seen: Seen) -> Iterator[Finding]:
    """Bounds that all gradients exceed, of the looks at the first steps."""
    if (record := seen.record) is None or not record.is_over:
        return
    most = _OFTEN if seen.asked else _ALWAYS
    for name, (least, _) in record.norms.items():
        if least > most:
            yield Finding(
                "clips always", (name,), f"in the first steps the norm of the gradient was always at least {least:.3g} "
                "times its bound: each step has the same length, whatever the gradient.",
                "Raise the bound, or look for a loss that is a sum and should be a mean.",
            )  # fmt: skip
    for place, share in record.clipped.items():
        if share >= _SIGN:
            yield Finding(
                "clips always", (seen.group_name(place),), "gradient_clip_value cuts every element of the gradients: "
                "nothing but their signs is left.", "Raise it, or look for a loss that is a sum and should be a mean.",
            )  # fmt: skip


def clips_never(seen: Seen) -> Iterator[Finding]:
    """Bounds that no gradient has come near to."""
    if (record := seen.record) is None or not record.is_over:
        return
    largest = {seen.group_name(place): ratio for place, ratio in record.largest.items()}
    for name, most in [*((name, most) for name, (_, most) in record.norms.items()), *largest.items()]:
        if most < _NEVER:
            yield Finding(
                "clips never", (name,), f"in the first steps the gradient was at most {most:.1g} of its bound: the "
                "clip does nothing.", "Lower the bound, or leave it out.",
            )  # fmt: skip


def _ratios(seen: Seen) -> Iterator[tuple[str, float]]:
    """What the norms of the last step were of their bounds, by what the bounds are of."""
    totals = seen.totals
    for place, group in enumerate(seen.groups):
        leaf, outer = seen.rules.leaf_of(group), seen.rules.norms_of(group)
        bounds = [*group.get("outer_clip_norms", ()), group.get("gradient_clip_norm")]
        for owner, bound in zip([*outer, leaf], bounds, strict=False):
            square = totals.get(id(owner))
            if bound is not None and square is not None and seen.can_read(bound):
                name = seen.group_name(place) if owner is leaf else "all that is clipped together"
                yield name, math.sqrt(square) / float(bound)
        bound = group.get("gradient_clip_previous_norm")
        if bound is not None and seen.can_read(bound):
            yield seen.group_name(place), float(group["previous_norm"]) / float(bound)
