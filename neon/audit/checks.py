"""The table of checks, and the audit that goes through it. A new check is one entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple

from neon.audit.clips import clips_always, clips_never
from neon.audit.conventions import decay_of_vectors, matrix_rule
from neon.audit.cut_blocks import cut_blocks
from neon.audit.findings import Audit, Finding
from neon.audit.membership import lost, not_given, replaced, tied_since, updated_twice
from neon.audit.rates import rate_zero, schedule_not_stepped, still_schedules
from neon.audit.rounding import lost_to_rounding
from neon.audit.seen import LAST, Seen
from neon.audit.silent import no_gradient, waiting


class When(IntEnum):
    """From when on a check is made: by itself at the first step, at the hundredth, or only where somebody asks."""

    FIRST = 1
    LAST = LAST
    ASKED = LAST + 1


class Check(NamedTuple):
    """A check, the kind of what it finds, and when it is made."""

    kind: str
    find: Callable[[Seen], Iterator[Finding]]
    when: When


CHECKS = (
    Check("replaced", replaced, When.FIRST),
    Check("not given", not_given, When.FIRST),
    Check("lost", lost, When.FIRST),
    Check("tied", tied_since, When.ASKED),
    Check("twice", updated_twice, When.ASKED),
    Check("matrix rule", matrix_rule, When.FIRST),
    Check("wide states", cut_blocks, When.FIRST),
    Check("no gradient", no_gradient, When.LAST),
    Check("rounding", lost_to_rounding, When.LAST),
    Check("rate 0", rate_zero, When.LAST),
    Check("schedule", schedule_not_stepped, When.LAST),
    Check("clips always", clips_always, When.LAST),
    Check("clips never", clips_never, When.ASKED),
    Check("decay", decay_of_vectors, When.ASKED),
)


def findings(seen: Seen, step: int) -> list[Finding]:
    """What the checks find that are due at a step."""
    return [finding for check in CHECKS if check.when <= step for finding in check.find(seen)]


def audit(seen: Seen) -> Audit:
    """Everything that there is to say, for somebody who has asked."""
    return Audit(findings(seen, When.ASKED), [*_notes(seen)])


def _notes(seen: Seen) -> Iterator[str]:
    frozen = sum(member.is_frozen for member in seen.members)
    yield f"The optimizer has {len(seen.members)} parameters, {frozen} of them frozen."
    if late := waiting(seen):
        yield f"{len(late)} have had no gradient yet."
    yield from still_schedules(seen)
    if not seen.models:
        yield "Of the model nothing is known: give it, as in optimizer.audit(model)."
    if seen.is_hidden:
        yield "Since gc.freeze() other optimizers and schedulers are hidden: of them nothing is known."
    if seen.record is None:
        yield "The first steps were not watched (audit=False, or a copy): of clips and rates nothing is known."
    elif seen.record.failure is not None:
        yield f"After {seen.record.steps} steps a look at them failed ({seen.record.failure}): please report it."
    elif not seen.record.is_over:
        yield f"Clips and rates are known after {LAST} steps; {seen.record.steps} have been made."
