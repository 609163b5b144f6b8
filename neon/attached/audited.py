"""What an attached optimizer says of itself: what is silently wrong, by itself in its first steps, and when asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from neon.assignment.wrappers import unwrapped
from neon.attached.looked_at import LookedAt
from neon.attached.observed import on_itself
from neon.attached.targets import Assigned
from neon.audit.checks import audit
from neon.audit.findings import Audit
from neon.audit.first_steps import FirstSteps
from neon.audit.seen import Record, Seen
from neon.messages import kind_of


class Audited(LookedAt):
    """The part of an attached optimizer that is audited."""

    _assigned: Assigned
    # While they are watched, and what they have shown. The class has no value: it would be looked for first.
    _first_steps: FirstSteps | None
    _record: Record | None

    @on_itself
    def audit(self, *models: nn.Module) -> Audit:
        """What of this training is silently wrong, each with its remedy; false where nothing is found.

        `models` are what is trained, by default the module that the optimizer was attached to. docs/audit.md lists what
        is looked for; rates, clips and what rounding loses are known once the first hundred steps have been watched.
        Raises `TypeError` for what is no module.
        """
        for model in models:
            if not isinstance(model, nn.Module):
                raise TypeError(f"audit takes torch modules. Received: {kind_of(model)}.")
        return audit(self._seen(*models, asked=True))

    def _watch_first_steps(self, *, watched: bool) -> None:
        self._first_steps = FirstSteps() if watched else None
        self._record = self._first_steps.record if self._first_steps is not None else None

    def _watched(self, step: Callable[[], Any]) -> Any:
        """A step that is looked at."""
        watching, self._first_steps = self._first_steps, None
        assert watching is not None
        try:
            return watching.around(step, self._seen())
        finally:
            self._first_steps = None if watching.is_over else watching

    def _seen(self, *models: nn.Module, asked: bool = False) -> Seen:
        own = None if self._module is None else self._module()
        known = [] if own is None else [own]
        attached = not models or [unwrapped(each)[0] for each in models] == [unwrapped(each)[0] for each in known]
        return Seen(self, self._rules, self._assigned, models or known, self._record, asked=asked, attached=attached)
