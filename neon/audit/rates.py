"""Rates that are zero, and schedules that nobody steps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from neon.audit.findings import Finding
from neon.audit.seen import LAST, Seen, alive
from neon.messages import shortened

# What those who move a rate, from 0 too, have written of it into a group: torch's schedulers, and neon's schedules.
_AIMS = ("initial_lr", "max_lr", "scheduled_lr")


def rate_zero(seen: Seen) -> Iterator[Finding]:
    """Groups whose rate has been 0 from the first step on, and that nobody moves: a warm-up may start there."""
    record = seen.record
    if record is None or not record.is_over:
        return
    first = [*record.rates, *[None] * len(seen.groups)]
    still = [
        place
        for place in range(len(seen.groups))
        if first[place] == 0 and seen.rate(place) == 0 and not (highest_rate(seen, place) or 0)
        if any(not member.is_frozen for member in seen.members_of(place))
    ]
    if still:
        yield Finding(
            "rate 0", tuple(map(seen.group_name, still)), f"the rate has been 0 for {LAST} steps, and no schedule "
            "moves it.", "Set lr (optimizer.set), or say that it is meant: optimizer.freeze, or a key with None.",
        )  # fmt: skip


def schedule_not_stepped(seen: Seen) -> Iterator[Finding]:
    """Schedulers of torch that cannot have been meant so.

    That is one that nobody has any more, and one that has more steps than there are epochs and has made none. Others
    may count epochs, of which the first may be long.
    """
    record = seen.record
    if record is None or not record.is_over or not _has_scheduler(seen):
        return
    unmoved = [place for place, rate in enumerate(record.rates) if rate is not None and seen.rate(place) == rate]
    if not unmoved or not (seen.asked or any("max_lr" in seen.groups[place] for place in unmoved)):
        return  # of schedulers by epoch nobody is asked for: it takes 0.05 s
    own = _schedulers(seen)
    names = tuple(map(seen.group_name, unmoved))
    if not own and not seen.is_hidden:
        yield Finding(
            "schedule", names, "a scheduler was made for it, and nobody has that any more: the rate stays.",
            "Keep the scheduler, and call its step().",
        )  # fmt: skip
    if not all(map(_is_at_its_start, own)):
        return  # one of several that come one after another
    for scheduler in own:
        if isinstance(scheduler, OneCycleLR) and scheduler.total_steps > _EPOCHS:
            yield Finding(
                "schedule", names, f"OneCycleLR has {scheduler.total_steps} steps and has made none in {LAST} of the "
                "optimizer's.", "Call scheduler.step() after each optimizer.step().",
            )  # fmt: skip


# More than so many steps are no epochs.
_EPOCHS = 1000


def highest_rate(seen: Seen, place: int) -> float | None:
    """The highest rate that is known of a group: a warm-up is on the way to it."""
    group = seen.groups[place]
    rates = [seen.rate(place), *(float(group[aim]) for aim in _AIMS if seen.can_read(group.get(aim)))]
    rates += seen.record.rates[place : place + 1] if seen.record is not None else []
    return max((rate for rate in rates if rate is not None), default=None)


def rises(seen: Seen, place: int) -> bool:
    """Whether the last of the first steps has a higher rate than the one before, by whoever moves it."""
    late = seen.record.late_rates[place : place + 1] if seen.record is not None and not seen.asked else []
    rate = seen.rate(place)
    return any(before is not None and rate is not None and before < rate for before in late)


def _has_scheduler(seen: Seen) -> bool:
    """Whether one of torch's schedulers has been made for the optimizer, which counts its steps."""
    step: Any = vars(seen.optimizer).get("step")
    return getattr(step, "_wrapped_by_lr_sched", False)


def _schedulers(seen: Seen) -> list[Any]:
    return [scheduler for scheduler in alive(LRScheduler) if seen.is_it(getattr(scheduler, "optimizer", None))]


def _is_at_its_start(scheduler: Any) -> bool:
    """Whether it has made no step; one of others, as `ChainedScheduler`, counts none of its own."""
    return getattr(scheduler, "last_epoch", 0) < 1


def still_schedules(seen: Seen) -> Iterator[str]:
    """What may be as it should be: schedules that have not moved yet."""
    steps = seen.steps
    for scheduler in _schedulers(seen) if _has_scheduler(seen) and steps > 1 else ():
        if hasattr(scheduler, "last_epoch") and _is_at_its_start(scheduler):
            kind = shortened(type(scheduler).__name__)
            yield f"{kind} has made no step in {steps:.0f} of the optimizer's: right in a first epoch."
    by_epoch = [
        place
        for place, group in enumerate(seen.groups)
        if (leaf := seen.rules.leaf_of(group))._has_schedule and not leaf._counts_steps and group["epoch"] == 0
    ]
    if by_epoch and steps > 1:
        yield f"Schedules by epoch are in epoch 0 after {steps:.0f} steps: set_epoch is to be called for each."
